//! Name look-up for one provider, remembered for moments only.
//!
//! The system's resolver blocks a thread for as long as it likes and cannot be cancelled. So a
//! provider has at most two look-ups running on a worker: the second is there because the first
//! may be stuck in a name server that died. What they find serves everybody who waits.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a found address is used: long enough for a burst of connects to share one look-up,
/// far below the life of any DNS record.
const REMEMBER: Duration = Duration::from_secs(2);

/// Look-ups at once.
const AT_ONCE: usize = 2;

/// The addresses of one host.
#[derive(Debug)]
pub(super) struct Lookup {
    turns: Arc<Semaphore>,
    found: RefCell<Option<(Instant, Rc<[SocketAddr]>)>>,
}

impl Lookup {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), found: RefCell::new(None) }
    }

    /// The addresses of `host`, which may be an address itself, in the resolver's order.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Rc<[SocketAddr]>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Rc::new([SocketAddr::new(address, port)]));
        }
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(io::Error::other)?;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let host = host.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            // Held until the resolver returns, even where nobody waits for it any more.
            let _turn = turn;
            (host.as_str(), port).to_socket_addrs().map(Vec::from_iter)
        });
        let found: Rc<[SocketAddr]> = lookup.await.map_err(io::Error::other)??.into();
        *self.found.borrow_mut() = Some((Instant::now(), Rc::clone(&found)));
        Ok(found)
    }

    /// Forgets what was found: nobody answers there.
    pub(super) fn forget(&self) {
        *self.found.borrow_mut() = None;
    }

    fn known(&self) -> Option<Rc<[SocketAddr]>> {
        let found = self.found.borrow();
        found.as_ref().filter(|(at, _)| at.elapsed() < REMEMBER).map(|(_, found)| Rc::clone(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_worker<T>(future: impl Future<Output = T>) -> T {
        actix_rt::System::new().block_on(future)
    }

    #[test]
    fn an_address_needs_no_lookup() {
        on_worker(async {
            let lookup = Lookup::new();
            let found = lookup.addresses("::1", 80).await.expect("an address");
            assert_eq!(&*found, &["[::1]:80".parse().expect("an address")]);
            assert!(lookup.known().is_none());
        });
    }

    #[test]
    fn a_name_is_remembered_until_it_is_forgotten() {
        on_worker(async {
            let lookup = Lookup::new();
            let found = lookup.addresses("localhost", 80).await.expect("localhost is known");
            assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty());
            assert_eq!(lookup.known().as_ref(), Some(&found));
            lookup.forget();
            assert!(lookup.known().is_none());
        });
    }

    #[test]
    fn a_stuck_resolver_holds_two_threads_at_most() {
        on_worker(async {
            let lookup = Lookup::new();
            let turns = Arc::clone(&lookup.turns);
            let stuck = turns.acquire_many(2).await.expect("two turns");
            let waiting = lookup.addresses("localhost", 80);
            let waited = tokio::time::timeout(Duration::from_millis(20), waiting).await;
            assert!(waited.is_err(), "a third look-up waits its turn");
            drop(stuck);
            assert!(lookup.addresses("localhost", 80).await.is_ok());
        });
    }
}
