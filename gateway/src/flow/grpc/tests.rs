use std::time::Duration;

use super::*;

fn request(content_type: &str) -> RequestHeader {
    let mut req = RequestHeader::build("POST", b"/echo.Echo/Unary", None).unwrap();
    req.insert_header("content-type", content_type).unwrap();
    req
}

fn answer(content_type: &str) -> ResponseHeader {
    let mut res = ResponseHeader::build(200, None).unwrap();
    res.insert_header("content-type", content_type).unwrap();
    res
}

#[test]
fn the_content_type_and_the_version_make_a_call() {
    for (content_type, wire) in [
        ("application/grpc", Some(Wire::Native)),
        ("Application/GRPC+proto", Some(Wire::Native)),
        ("application/grpc;charset=utf-8", Some(Wire::Native)),
        ("application/grpc-web", Some(Wire::Web)),
        ("application/grpc-web+proto", Some(Wire::Web)),
        ("application/grpc-web-text+proto", Some(Wire::WebText)),
        ("application/grpcx", None),
        ("application/grpc-webby", None),
        ("application/json", None),
        ("", None),
    ] {
        let req = request(content_type);
        assert_eq!(of_type(&req.headers).map(|(wire, _)| wire), wire, "{content_type}");
        assert_eq!(Call::native(&req, Version::HTTP_2).is_some(), wire == Some(Wire::Native), "{content_type}");
        assert!(Call::native(&req, Version::HTTP_11).is_none(), "{content_type}");
        let web = matches!(wire, Some(Wire::Web | Wire::WebText));
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(Call::web(&req, version).map(|call| call.wire), wire.filter(|_| web), "{content_type}");
        }
        assert!(Call::web(&req, Version::HTTP_10).is_none(), "{content_type}");
    }
    let mut twice = request("application/grpc");
    twice.append_header("content-type", "application/json").unwrap();
    assert!(Call::native(&twice, Version::HTTP_2).is_none());
}

#[test]
fn an_upstream_gets_what_a_grpc_server_asks_for() {
    let mut req = request("application/grpc-web-text+proto; x=y");
    req.insert_header("content-length", "8").unwrap();
    req.insert_header("grpc-timeout", "10S").unwrap();
    let mut call = Call::web(&req, Version::HTTP_11).unwrap();
    call.take_timeout(&req.headers, Instant::now()).unwrap();
    call.outbound(&mut req).unwrap();
    assert_eq!(req.headers["content-type"], "application/grpc+proto; x=y");
    assert_eq!(req.headers["te"], "trailers");
    assert!(!req.headers.contains_key("content-length"));
    let left = timeout::of(&req.headers).unwrap().unwrap();
    assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(9), "{left:?}");
}

#[test]
fn only_a_grpc_answer_is_bridged() {
    let mut call = Call::new(Wire::WebText);
    let mut page = answer("text/html");
    call.response(&mut page).unwrap();
    let mut piece = Some(Bytes::from_static(b"<html>"));
    call.response_body(&mut piece, true);
    assert_eq!((page.headers["content-type"].to_str().unwrap(), piece.unwrap()), ("text/html", "<html>".into()));
    assert_eq!(call.trailers(&HeaderMap::new()), None);
}

#[test]
fn a_body_that_ends_without_a_status_gets_one() {
    let mut call = Call::new(Wire::Web);
    let mut res = answer("application/grpc+proto");
    call.response(&mut res).unwrap();
    assert_eq!(res.headers["content-type"], "application/grpc-web+proto");
    let mut piece = Some(Bytes::from_static(b"\0\0\0\0\0"));
    call.response_body(&mut piece, true);
    assert_eq!(&piece.unwrap()[..], b"\0\0\0\0\0\x80\0\0\0\x11grpc-status: 13\r\n");
    assert_eq!(call.status, Some(13));
}

#[test]
fn text_that_breaks_off_is_refused() {
    let mut call = Call::new(Wire::WebText);
    let mut piece = Some(Bytes::from_static(b"AAAAAA"));
    call.request_body(&mut piece, false).unwrap();
    assert_eq!(piece.unwrap(), Bytes::from_static(&[0; 3]));
    let mut piece = Some(Bytes::from_static(b"A"));
    assert!(call.request_body(&mut piece, true).is_err());
}
