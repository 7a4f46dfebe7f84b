//! A small SSE server that can be told to do one thing wrong.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

/// What is done wrong with the event of number [`LIED_ABOUT`], on the first stream only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    Drops,
    Doubles,
    /// It comes after the next one.
    Swaps,
    Cuts,
    /// Its publishing is answered 500, and it is not delivered to anybody.
    Refuses,
    /// Every stream gets it after the next one.
    SwapsForAll,
    /// Its publishing is never answered, and it is not delivered to anybody.
    NeverAnswers,
    /// No lie: every publishing takes [`SLOW`].
    IsSlow,
}

pub(crate) const LIED_ABOUT: usize = 3;
pub(crate) const SLOW: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Streams {
    open: Vec<UnboundedSender<Bytes>>,
    /// By stream, what is kept back.
    held: Vec<Option<Bytes>>,
    events: usize,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Starts one and gives its URL. Every GET is a stream, every POST an event for all of them.
pub(crate) async fn start(lie: Lie) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let streams = Arc::new(Mutex::new(Streams::default()));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("accepts");
            let streams = Arc::clone(&streams);
            let service = service_fn(move |request| answer(request, Arc::clone(&streams), lie));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    url
}

async fn answer(
    request: Request<Incoming>,
    streams: Arc<Mutex<Streams>>,
    lie: Lie,
) -> Result<Response<Body>, hyper::Error> {
    if request.method() == Method::GET {
        let (sender, mut receiver) = unbounded_channel();
        let mut streams = streams.lock().expect("whole");
        streams.open.push(sender);
        streams.held.push(None);
        let frames = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        return Ok(event_stream(stream::iter([Bytes::from(": hello\n\n")]).chain(frames)));
    }
    let data = request.into_body().collect().await?.to_bytes();
    let frame = Bytes::from([b"data: ", &data[..], b"\n\n"].concat());
    if lie == Lie::IsSlow {
        tokio::time::sleep(SLOW).await;
    }
    let accepted = streams.lock().expect("whole").publish(&frame, lie);
    if !accepted && lie == Lie::NeverAnswers {
        std::future::pending::<()>().await;
    }
    let status = if accepted { 200 } else { 500 };
    Ok(Response::builder().status(status).body(Empty::new().boxed_unsync()).expect("a response"))
}

fn event_stream(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let body = StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync();
    Response::builder().header("content-type", "text/event-stream").body(body).expect("a response")
}

impl Streams {
    /// Whether it was accepted.
    fn publish(&mut self, frame: &Bytes, lie: Lie) -> bool {
        let is_lied_about = self.events == LIED_ABOUT;
        self.events += 1;
        if is_lied_about && matches!(lie, Lie::Refuses | Lie::NeverAnswers) {
            return false;
        }
        for (index, (stream, held)) in self.open.iter_mut().zip(&mut self.held).enumerate() {
            // Whoever has gone gets nothing.
            let send = |frame: &Bytes| drop(stream.send(frame.clone()));
            match lie {
                Lie::Drops if is_lied_about && index == 0 => {}
                Lie::Doubles if is_lied_about && index == 0 => [frame; 2].into_iter().for_each(send),
                Lie::Swaps if is_lied_about && index == 0 => *held = Some(frame.clone()),
                Lie::SwapsForAll if is_lied_about => *held = Some(frame.clone()),
                Lie::Cuts if is_lied_about && index == 0 => *stream = unbounded_channel().0,
                _ => {
                    send(frame);
                    held.take().iter().for_each(send);
                }
            }
        }
        true
    }
}
