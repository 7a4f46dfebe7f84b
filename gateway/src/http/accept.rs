//! Taking connections in, and waiting when the machine has no room for more.

use super::{App, connection};
use crate::lifecycle::Phase;
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};

/// Unsent bytes in the kernel at which a socket says that it is full: what waits, waits where a policy can act on it.
pub(super) const NOTSENT_LOWAT: u32 = 16 * 1024;
/// Connections that the kernel holds for us, bounded by `net.core.somaxconn`: a whole replica's clients may come at once.
const BACKLOG: i32 = 65_535;
/// How long those have who are about to connect when the end comes: more than a round trip between a proxy and us.
const HANDSHAKE: Duration = Duration::from_millis(50);
/// After the kernel had no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds a listener for many connections at once, whose peers take bytes within `write_timeout` or are cut. Needs a
/// tokio runtime.
///
/// # Errors
/// What the kernel says.
pub fn bind(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    tune(&socket, write_timeout)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Sets what every connection inherits from its listener, which saves three calls for each.
#[cfg(target_os = "linux")]
fn tune(listener: &socket2::Socket, write_timeout: Duration) -> io::Result<()> {
    listener.set_tcp_nodelay(true)?;
    listener.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    listener.set_tcp_user_timeout(Some(write_timeout))
}

#[cfg(not(target_os = "linux"))]
fn tune(listener: &socket2::Socket, _write_timeout: Duration) -> io::Result<()> {
    listener.set_tcp_nodelay(true)
}

/// Connections taken in before it is the turn of those who are here already. Thousands may come at once.
const AT_A_TIME: u32 = 16;

/// Serves whoever connects, until the gateway closes.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let mut closing = pin!(app.lifecycle.reached(Phase::Closing));
    let mut complained = false;
    let mut taken: u32 = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = async {
                app.pending.room().await;
                listener.accept().await
            } => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                complained = false;
                take(&app, stream, address);
                taken = taken.wrapping_add(1);
                if taken.is_multiple_of(AT_A_TIME) {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors, most likely. Streams go on; those who come wait in the backlog until somebody
                // who has no request leaves.
                app.pending.close_oldest();
                app.metrics.refused.with_label_values(&["accept"]).inc();
                if !std::mem::replace(&mut complained, true) {
                    tracing::error!(%error, "no connection can be accepted, trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    take_the_last(listener, &app).await;
}

fn take(app: &Arc<App>, stream: TcpStream, address: SocketAddr) {
    let seat = app.pending.enter();
    tokio::spawn(connection::serve(Arc::clone(app), stream, address, seat));
}

/// Serves who is in the backlog already: the kernel would reset them with the listener, requests and all. Whoever comes
/// meanwhile is not answered, and asks again in a second, when nobody is here.
async fn take_the_last(listener: TcpListener, app: &Arc<App>) {
    if let Err(error) = turn_away(&listener) {
        tracing::debug!(%error, "connections that come at the very end may be reset");
    }
    tokio::time::sleep(HANDSHAKE).await;
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, address)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            take(app, stream, address);
        }
    }
}

/// Has the kernel drop whatever would begin a connection: a packet whose TCP header, the 14th byte of it, says SYN.
#[cfg(target_os = "linux")]
fn turn_away(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};
    /// Instructions of the kernel's packet filter (`linux/filter.h`).
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_BITS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_BITS, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn turn_away(_listener: &TcpListener) -> io::Result<()> {
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_inherit_what_was_set_for_their_listener() {
        let listener = bind(([127, 0, 0, 1], 0).into(), Duration::from_secs(7)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (stream, _)) = (client.expect("connects"), accepted.expect("accepted"));
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("asked"));
        assert_eq!(socket.tcp_notsent_lowat().expect("asked"), NOTSENT_LOWAT);
        assert_eq!(socket.tcp_user_timeout().expect("asked"), Some(Duration::from_secs(7)));
    }
}
