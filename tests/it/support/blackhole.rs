//! An address that lets nobody in and turns nobody away: connecting to it takes for ever.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A listener whose queue is full and never emptied, so that the kernel drops every further
/// attempt to connect.
pub(crate) struct Blackhole {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    /// Fills the queue of a listener on a free port.
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("a listener");
        let address = listener.local_addr().expect("an address").as_socket().expect("IPv4");
        let mut queued = Vec::new();
        while let Ok(tcp) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queued.push(tcp);
            assert!(queued.len() < 16, "the queue does not fill");
        }
        Self { address, _listener: listener, _queued: queued }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many attempts to connect are under way.
    pub(crate) fn connecting(&self) -> usize {
        /// SYN_SENT in the kernel's table.
        const SYN_SENT: &str = "02";
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
        let port = format!(":{:04X}", self.address.port());
        let of_ours = |line: &&str| {
            let mut words = line.split_whitespace().skip(2);
            let remote = words.next().is_some_and(|remote| remote.ends_with(&port));
            remote && words.next() == Some(SYN_SENT)
        };
        table.lines().filter(of_ours).count()
    }
}
