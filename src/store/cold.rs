//! Calls to Redis that no request waits for: migrations, and whatever an operator asks. They have
//! connections of their own, so that nothing on the way of a request stands behind them.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, PoolError};
use redis::aio::ConnectionLike;
use redis::cluster::ClusterClient;
use redis::{AsyncConnectionConfig, Cmd, RedisError, Value};
use tokio::time::timeout;

use super::connection::{Config, EndpointError, Error};
use super::endpoint::{CONNECT, Endpoint};
use super::fault;

/// Connections at most: such calls come one by one.
const CONNECTIONS: usize = 4;
/// The longest that one call may take, connecting included: a script that changes many keys takes
/// long, and who waits for it is a person or a start.
const LIMIT: Duration = Duration::from_secs(5);

/// The way for such calls.
pub(super) struct Cold {
    way: Way,
}

enum Way {
    /// One master: a pool.
    Single(Pool),
    /// A cluster: its client keeps one connection to each node, made for each use. The pool knows
    /// no certificates there.
    Cluster(Box<ClusterClient>),
}

impl Cold {
    /// Connects to nothing yet.
    pub(super) fn open(config: &Config) -> Result<Self, EndpointError> {
        let way = match Endpoint::parse(config.url.expose(), &config.tls, LIMIT)? {
            Endpoint::Single(client) => {
                let connection = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(LIMIT));
                let info = client.get_connection_info().clone();
                let manager = Manager::new_with_config(info, connection);
                let manager = manager.map_err(|_| EndpointError::Url)?;
                let pool = Pool::builder(manager).max_size(CONNECTIONS).build();
                Way::Single(pool.map_err(|_| EndpointError::Url)?)
            }
            Endpoint::Cluster(client) => Way::Cluster(client),
        };
        Ok(Self { way })
    }

    /// The answer to one command.
    ///
    /// # Errors
    /// There is none; what was asked may still happen.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Error> {
        let answer = timeout(LIMIT, self.ask_without_limit(command)).await;
        answer.map_err(|_| Error::Away)?
    }

    async fn ask_without_limit(&self, command: &Cmd) -> Result<Value, Error> {
        let answer = match &self.way {
            Way::Single(pool) => {
                let mut connection = pool.get().await.map_err(|error| match error {
                    PoolError::Backend(error) => refused(&error),
                    _ => Error::Away,
                })?;
                connection.req_packed_command(command).await
            }
            Way::Cluster(client) => {
                let connection = client.get_async_connection().await;
                let mut connection = connection.map_err(|error| refused(&error))?;
                connection.req_packed_command(command).await
            }
        };
        answer.and_then(Value::extract_error).map_err(|error| refused(&error))
    }
}

impl std::fmt::Debug for Cold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cold").finish_non_exhaustive()
    }
}

fn refused(error: &RedisError) -> Error {
    let (code, handling, means) = fault::read(error);
    match handling {
        fault::Handling::Broken => Error::Away,
        _ => Error::Refused { code, means },
    }
}
