//! The listeners alone, over raw sockets: a scripted backend stands in for the proxy.

mod admin;
mod bodies;
mod browsers;
mod clocks;
mod framing;
mod fuzz;
mod hostile;
mod peers;
mod rig;
mod routes;
