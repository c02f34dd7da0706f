//! Finds out who listens on a TCP port or at a path of this machine, from /proc/net (proc(5)).

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The user whose socket receives connections to the address.
///
/// That is the socket with the most specific address. The kernel lets no user bind a more specific
/// address beside a socket of another user.
///
/// # Errors
///
/// /proc cannot be read.
pub(crate) fn owner(address: SocketAddr) -> io::Result<Option<u32>> {
    Ok(find(address)?.map(|entry| entry.uid))
}

/// The user of the connection that was accepted at `here` from `there`.
///
/// # Errors
///
/// /proc cannot be read.
pub(crate) fn owner_of_accepted(here: SocketAddr, there: SocketAddr) -> io::Result<Option<u32>> {
    let is_it = |entry: &Entry| {
        canonical(entry.local) == here && canonical(entry.remote) == there && entry.inode != 0
    };
    for table in TABLES {
        for entry in entries(table)? {
            let entry = entry?;
            if is_it(&entry) {
                return Ok(Some(entry.uid));
            }
        }
    }
    Ok(None)
}

/// A process that receives connections to the port, and its user, as far as this process may know.
pub(crate) fn holder(address: SocketAddr) -> Option<Holder> {
    let entry = match address.ip().is_unspecified() {
        true => on_port(address.port()).ok()?.into_iter().next()?,
        false => find(address).ok()??,
    };
    Some(Holder {
        local: entry.local,
        uid: entry.uid,
        pid: process_with(entry.inode),
    })
}

/// The process that listens on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The address where it listens; may be the unspecified address.
    pub local: SocketAddr,
    pub uid: u32,
    /// `None` for processes of other users, unless this process is root.
    pub pid: Option<u32>,
}

fn find(address: SocketAddr) -> io::Result<Option<Entry>> {
    let entries = on_port(address.port())?;
    let any: IpAddr = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // The last one is an IPv6 socket that also accepts IPv4. There can be no IPv4 socket beside it.
    let places = [address.ip(), any, Ipv6Addr::UNSPECIFIED.into()];
    let at = |ip: IpAddr| {
        let is_there = move |entry: &&Entry| canonical(entry.local).ip() == ip;
        entries.iter().find(is_there).copied()
    };
    Ok(places.into_iter().find_map(at))
}

/// The sockets that listen on a port.
fn on_port(port: u16) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for table in TABLES {
        for entry in entries(table)? {
            let entry = entry?;
            // The kernel lists listening sockets first, and possibly very many connections after them.
            if entry.state != LISTEN {
                break;
            }
            if entry.local.port() == port {
                found.push(entry);
            }
        }
    }
    Ok(found)
}

fn process_with(inode: u64) -> Option<u32> {
    let link = format!("socket:[{inode}]");
    let has_it = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.is_ok_and(|mut all| {
            all.any(|it| it.is_ok_and(|it| fs::read_link(it.path()).is_ok_and(|to| to == *link)))
        })
    };
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| has_it(*pid))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

fn entries(table: &str) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>>>> {
    let file = match File::open(table) {
        Ok(file) => file,
        // A kernel without IPv6 does not have this table.
        Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {
            return Ok(Box::new(std::iter::empty()));
        }
        Err(error) => return Err(error),
    };
    let lines = BufReader::new(file).lines().skip(1);
    Ok(Box::new(lines.map(|line| {
        let line = line?;
        parse(&line).ok_or_else(|| io::Error::other(format!("not a line of {TABLES:?}: {line}")))
    })))
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`
fn parse(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let field = |index: usize| fields.get(index).copied();
    Some(Entry {
        local: address(field(1)?)?,
        remote: address(field(2)?)?,
        state: u8::from_str_radix(field(3)?, 16).ok()?,
        uid: field(7)?.parse().ok()?,
        inode: field(9)?.parse().ok()?,
    })
}

/// Parses an address: its bytes are in network order, but printed as words in the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..ip.len())
        .step_by(8)
        .map(|start| {
            let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    let bytes = words?.concat();
    let ip: IpAddr = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(bytes) => bytes.into(),
        Err(_) => <[u8; 16]>::try_from(&bytes[..]).ok()?.into(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

const LISTEN: u8 = 0x0a;

/// The state of a Unix socket that is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnixState {
    Bound,
    Listening,
}

/// Whether there is such a socket at this path. Sockets that were accepted there have the same path,
/// but they are connected and do not count.
pub(crate) fn is_bound(path: &Path, state: UnixState) -> bool {
    // __SO_ACCEPTCON (linux/net.h).
    let flags = match state {
        UnixState::Bound => "00000000",
        UnixState::Listening => "00010000",
    };
    let is_it = |line: &[u8]| {
        // The fields are Num, RefCount, Protocol, Flags, Type, St, Inode and, for a socket that has
        // one, Path.
        let at = line.iter().position(|byte| *byte == b'/');
        let (fields, its_path) = line.split_at(at.unwrap_or(line.len()));
        let fields = String::from_utf8_lossy(fields);
        let mut fields = fields.split_ascii_whitespace().skip(3);
        let (its_flags, _, its_state) = (fields.next(), fields.next(), fields.next());
        its_flags == Some(flags)
            && its_state == Some(UNCONNECTED)
            && its_path == path.as_os_str().as_bytes()
    };
    let sockets = fs::read("/proc/net/unix").unwrap_or_default();
    sockets.split(|byte| *byte == b'\n').any(is_it)
}

/// SS_UNCONNECTED.
const UNCONNECTED: &str = "01";

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn lines_of_both_tables_are_read() {
        let line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0";
        let entry = parse(line).expect("a line");
        assert_eq!(entry.local, "127.0.0.1:8080".parse().expect("an address"));
        assert_eq!((entry.state, entry.uid, entry.inode), (LISTEN, 1000, 4711));
        let line = "   0: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1 0 100 0 0 10 0";
        let entry = parse(line).expect("a line");
        assert_eq!(entry.local, "[::1]:443".parse().expect("an address"));
        for end in 0..60 {
            assert_eq!(parse(&line[..end]), None);
        }
    }

    #[test]
    fn a_listener_has_an_owner_however_it_is_bound() {
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(bound).expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!(owner(address).expect("a table"), Some(us()), "{bound}");
            let holder = holder(address).expect("a holder");
            assert_eq!(holder.pid, Some(std::process::id()));
            let client = TcpStream::connect(address).expect("a connection");
            let there = client.local_addr().expect("connected");
            let (_accepted, _) = listener.accept().expect("a connection");
            drop(listener);
            assert_eq!(owner(address).expect("a table"), None, "{bound}");
            let owner = owner_of_accepted(address, there).expect("a table");
            assert_eq!(owner, Some(us()), "{bound}");
        }
    }
}
