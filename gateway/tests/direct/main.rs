//! Publishing straight to a real Redis, by the function and by the script, beside a gateway's own broker. Each test starts
//! a server of its own (Debian's package `redis-server`, 7.0 or later, or what `REDIS_SERVER` names).

mod broken;
mod calls;
mod install;
mod limits;
mod positions;
mod server;
mod validation;
