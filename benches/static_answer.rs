//! The least that an answer costs with this stack: a server that reads a body and answers with a
//! fixed one. `benches/node.py` holds the simulator against it.
//!
//! Usage: static_answer 127.0.0.1:PORT

use std::io;

use actix_web::{App, HttpResponse, HttpServer, web};

/// As long as the simulator's plain answer.
const ANSWER: &str = include_str!("static_answer.json");

fn main() -> io::Result<()> {
    actix_web::rt::System::new().block_on(serve())
}

async fn serve() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    HttpServer::new(|| {
        App::new().default_service(web::to(|body: web::Bytes| async move {
            drop(body);
            HttpResponse::Ok().content_type("application/json").body(ANSWER)
        }))
    })
    .workers(1)
    .bind(addr)?
    .run()
    .await
}
