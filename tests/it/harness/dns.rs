//! A name server that knows what it is told.

use std::{
    collections::HashMap,
    net::{IpAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SRV},
};

/// What is known of a name.
#[derive(Clone)]
enum Known {
    Records(u32, Vec<RData>),
    Failure(ResponseCode),
    Silence,
}

/// A name server on a free port; stops when dropped. What it was not told of does not exist.
pub struct Dns {
    address: String,
    zone: Arc<Mutex<HashMap<String, Known>>>,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
    stopped: Arc<AtomicBool>,
}

impl Dns {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let dns = Self { address, zone: Arc::default(), asked: Arc::default(), stopped: Arc::default() };
        let (zone, asked, stopped) = (Arc::clone(&dns.zone), Arc::clone(&dns.asked), Arc::clone(&dns.stopped));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                if let Some(answer) = answer(&question, &zone, &asked) {
                    let _ = socket.send_to(&answer.to_vec().unwrap(), client);
                }
            }
        });
        dns
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn tell(&self, name: &str, known: Known) {
        self.zone.lock().unwrap().insert(name.to_owned(), known);
    }

    /// From now on a host has these addresses, for this many seconds.
    pub fn host(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let record = |text: &&str| match text.parse().unwrap() {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        self.tell(name, Known::Records(ttl, addresses.iter().map(record).collect()));
    }

    /// From now on a service has these places: priority, weight, port and host.
    pub fn service(&self, name: &str, ttl: u32, places: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            RData::SRV(SRV::new(*priority, *weight, *port, Name::from_utf8(host).unwrap()))
        };
        self.tell(name, Known::Records(ttl, places.iter().map(record).collect()));
    }

    /// From now on the server fails for this name.
    pub fn fail(&self, name: &str) {
        self.tell(name, Known::Failure(ResponseCode::ServFail));
    }

    /// From now on it says nothing to questions for this name.
    pub fn hush(&self, name: &str) {
        self.tell(name, Known::Silence);
    }

    /// From now on this name does not exist.
    pub fn forget(&self, name: &str) {
        self.zone.lock().unwrap().remove(name);
    }

    /// Questions for addresses of version 4 or places of this name so far.
    pub fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(other, kind)| other == name && *kind != RecordType::AAAA).count()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

fn answer(
    question: &Message,
    zone: &Mutex<HashMap<String, Known>>,
    asked: &Mutex<Vec<(String, RecordType)>>,
) -> Option<Message> {
    let query = question.queries.first()?;
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    asked.lock().unwrap().push((name.clone(), query.query_type()));
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match zone.lock().unwrap().get(&name).cloned() {
        Some(Known::Records(ttl, records)) => {
            let fitting = records.into_iter().filter(|data| data.record_type() == query.query_type());
            answer.add_answers(fitting.map(|data| Record::from_rdata(query.name().clone(), ttl, data)));
        }
        Some(Known::Failure(code)) => answer.metadata.response_code = code,
        Some(Known::Silence) => return None,
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    Some(answer)
}
