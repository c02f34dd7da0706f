"""Many certificates: the time to start, the memory, and handshakes that choose one by SNI."""

import base64
import subprocess
import textwrap

import works

COUNT = 10_000
FEW = 200  # in a quick run
FIRST = "host00000.test"
# The hosts that clients ask for: as many as there are lanes of connections.
ASKED = 16


def make(directory, count):
    """A file NAME.pem for each of `count` names, with a certificate and the one key of all. They differ in their names
    alone, so only the signature of the first is right; a server does not look at its own."""
    directory.mkdir()
    chain, key = directory / "first", directory / "key"
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                           "-subj", f"/CN={FIRST}", "-addext", f"subjectAltName = DNS:{FIRST}", "-out", chain, "-keyout", key],
                          capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(f"openssl has made no certificate: {made.stderr}")
    der = base64.b64decode("".join(chain.read_text().splitlines()[1:-1]))
    key_text = key.read_text()
    chain.unlink()
    key.unlink()
    hosts = []
    for number in range(count):
        name = f"host{number:05}.test"
        lines = textwrap.wrap(base64.b64encode(der.replace(FIRST.encode(), name.encode())).decode(), 64)
        path = directory / f"{name}.pem"
        path.write_text("\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", key_text]))
        hosts.append(path)
    return hosts


def measure(bench, start, chosen, hosts, log):
    """Starts each proxy with all certificates, and measures full handshakes with some of the hosts."""
    work = works.HANDSHAKES[0]
    asked = [{"name": path.stem, "certificate": str(path)} for path in hosts[:: max(1, len(hosts) // ASKED)][:ASKED]]
    for proxy in chosen:
        if not proxy.tls or proxy.name not in works.MAIN:
            continue
        with start(proxy, hosts=hosts) as running:
            sample = {"proxy": proxy.name, "certificates": len(hosts), "start_seconds": round(running.start_seconds, 3)}
            sample["own"] = running.memory()["own"]
            sample |= bench.timed(running, work.task | {"hosts": asked})
            del sample["threads"]
            log(proxy, f"start {sample['start_seconds']:6.2f} s   own {sample['own'] / 2**20:7.1f} MiB   {work.figure(sample):8.1f} µs")
            yield sample


def section(page, table):
    """The table of the report."""
    samples = page.results.get("certificates", [])
    if not samples:
        return ""
    one = works.HANDSHAKES[0]
    rows = []
    for sample in samples:
        name, cost = sample["proxy"], one.figure(sample)
        before, plain = page.found.get(("memory before", name)), page.found.get((one.name, name))
        rows.append([page.proxies[name]["label"], f"{sample['start_seconds']:.2f}", f"{sample['own'] / 2**20:.1f}",
                     f"{before.median / 1024:.1f}" if before else "–", f"{cost:.0f}", f"{plain.median:.0f}" if plain else "–"])
    return (f"## {samples[0]['certificates']:,} certificates\n\nEach for one host name, ECDSA P-256; the clients ask for {ASKED} of them. Own memory as above, before any"
            " connection. HAProxy reads a directory of them; nginx's stream module has no servers by name, and reads the file of the name"
            " for each handshake.\n\n"
            + table(["", "seconds to start", "own MiB", "with one", "full handshake, CPU µs", "with one"], rows))
