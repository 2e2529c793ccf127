//! `crossway demo`

mod backends;
mod issuer;
mod serve;

use std::{net::TcpListener, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use crate::reload::Origin;

/// The demo's configuration, as it stands in `conf/`.
const CONFIG: &str = include_str!("../../../conf/demo.yaml");

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Port of the gateway; another free one is taken if it is in use. With 0 all ports are free ones.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// Serves the sample backends, the issuer of tokens and the gateway, and prints what to try.
pub(super) fn demo(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let addresses = Addresses {
        gateway: free_address(arguments.port)?,
        admin: free_address(if arguments.port == 0 { 0 } else { 9900 })?,
        crm: backends::start("crm", backends::crm)?,
        erp: backends::start("erp", backends::erp)?,
        issuer: issuer::start()?,
    };
    let text = addresses.put_into(CONFIG);
    super::run::serve(Origin::Text(text), false, |_| {
        // A terminal that has gone away does not end the demo.
        let _ = super::print(&addresses.put_into(GREETING));
    })
}

/// The addresses the demo really uses, by those its texts name.
struct Addresses {
    gateway: String,
    admin: String,
    crm: String,
    erp: String,
    issuer: String,
}

impl Addresses {
    fn put_into(&self, text: &str) -> String {
        // In two steps: an address put in must not be taken for one that is to be replaced.
        let named = [
            ("127.0.0.1:8080", &self.gateway),
            ("127.0.0.1:9900", &self.admin),
            ("127.0.0.1:9101", &self.crm),
            ("127.0.0.1:9102", &self.erp),
            ("127.0.0.1:9103", &self.issuer),
        ];
        let marked = named
            .iter()
            .enumerate()
            .fold(text.to_owned(), |t, (at, (name, _))| t.replace(name, &format!("\u{1}{at}\u{1}")));
        named.iter().enumerate().fold(marked, |t, (at, (_, address))| t.replace(&format!("\u{1}{at}\u{1}"), address))
    }
}

/// The wanted port if it is free, else one that is.
fn free_address(wanted: u16) -> anyhow::Result<String> {
    let socket = TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    Ok(socket.and_then(|s| s.local_addr()).context("no free port")?.to_string())
}

const GREETING: &str = r#"
Crossway is serving two sample backends. Stop it with Ctrl-C.

  gateway      http://127.0.0.1:8080
  CRM backend  http://127.0.0.1:9101    (what it received: /received)
  ERP backend  http://127.0.0.1:9102    (what it received: /received)
  issuer       http://127.0.0.1:9103    (of tokens, for the orders)
  admin        http://127.0.0.1:9900

Try, in another terminal:

  A customer of the CRM, found under the path that callers know:
    curl -i http://127.0.0.1:8080/customers/42                                        # 200

  The ERP is for known callers only; the second line has a key:
    curl -i 'http://127.0.0.1:8080/invoices?client=42'                                  # 401
    curl -i -H 'X-API-Key: demo-key-acme-mobile' 'http://127.0.0.1:8080/invoices?client=42' # 200

  A new client for the ERP: the body passes through, the key does not:
    curl -i -H 'X-API-Key: demo-key-acme-mobile' -H 'Content-Type: application/json' -d '{"clientName":"Ada Lovelace"}' http://127.0.0.1:8080/invoices/clients # 201

  Orders want a token (JWT). The demo's issuer gives one that is good for reading; with another
  signature it is good for nothing:
    curl -i http://127.0.0.1:8080/orders                                              # 401
    TOKEN=$(curl -s -u acme-mobile:demo-secret-acme-mobile -d 'grant_type=client_credentials&scope=orders.read' http://127.0.0.1:9103/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
    curl -i -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/orders            # 200
    curl -i -H "Authorization: Bearer ${TOKEN%????}AAAA" http://127.0.0.1:8080/orders # 401

  To order takes another scope, which the client must have asked for:
    curl -i -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"article":"A-9"}' http://127.0.0.1:8080/orders # 403
    TOKEN=$(curl -s -u acme-mobile:demo-secret-acme-mobile -d 'grant_type=client_credentials&scope=orders.read+orders.write' http://127.0.0.1:9103/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
    curl -i -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"article":"A-9"}' http://127.0.0.1:8080/orders # 201

  A browser of another site asks first (CORS):
    curl -i -X OPTIONS -H 'Origin: https://app.example.com' -H 'Access-Control-Request-Method: GET' http://127.0.0.1:8080/customers/42 # 204

  An old address that has moved, a fixed answer, a backend error made presentable:
    curl -i http://127.0.0.1:8080/crm/customers/42                                    # 308
    curl -i http://127.0.0.1:8080/about                                               # 200
    curl -i http://127.0.0.1:8080/customers/broken                                    # 503

  What the gateway refuses, it explains:
    curl -i http://127.0.0.1:8080/nowhere                                             # 404
    curl -i -X DELETE http://127.0.0.1:8080/customers/42                              # 405
    curl -i --path-as-is http://127.0.0.1:8080/customers/..%2f..%2fadmin              # 400

  And what operators see:
    curl -i http://127.0.0.1:9900/readyz                                              # 200
    curl -i -H 'Authorization: Bearer demo-admin-token-0123' http://127.0.0.1:9900/api/status # 200
    curl -i -H 'Authorization: Bearer demo-admin-token-0123' http://127.0.0.1:9900/metrics    # 200

"#;
