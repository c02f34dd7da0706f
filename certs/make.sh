#!/usr/bin/env bash
# Makes the development certificates of this folder: a root, a server and a client, each with its key.
#
# They serve the demo, the examples and the tests. All the keys are in the repository, so they prove
# nothing to anybody; the organisation in every subject says so. For real use bring your own.
#
# The validity is fixed, 2020 to 2120, and not counted from today: a machine with a wrong clock must
# still run the demo, and a test suite must not expire.
#
# Usage: certs/make.sh        replaces all six files; on any error none of them
# Needs: openssl 3.0 or later
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
cd "$new"

not_before=20200101000000Z
not_after=21200101000000Z
organisation="Vestibule DEVELOPMENT ONLY - do not trust"

cat >openssl.cnf <<'END'
[req]
distinguished_name = names
utf8 = yes
string_mask = utf8only
[names]

[ca]
default_ca = development
[development]
new_certs_dir = .
database = index.txt
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any_subject
email_in_dn = no
[any_subject]
organizationName = supplied
organizationalUnitName = optional
commonName = supplied

[root]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always

[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1

[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = URI:spiffe://vestibule.example/ns/demo/sa/web
END
: >index.txt

# request NAME SUBJECT: a P-256 key in PKCS#8 and a signing request.
request() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:named_curve \
        -out "$1-key.pem"
    openssl req -new -config openssl.cnf -key "$1-key.pem" -subj "$2" -out "$1.csr"
}

# sign NAME EXTENSIONS ARG...: by `openssl ca`, as `openssl req` and `openssl x509` of 3.0 take no start date.
sign() {
    local name=$1 extensions=$2
    shift 2
    openssl ca -batch -notext -config openssl.cnf -extensions "$extensions" \
        -startdate "$not_before" -enddate "$not_after" \
        -in "$name.csr" -out "$name.pem" "$@" 2>"$name.log" || { cat "$name.log" >&2; return 1; }
}

request ca "/O=$organisation/CN=Vestibule development root"
sign ca root -selfsign -keyfile ca-key.pem

request server "/O=$organisation/CN=localhost"
sign server server -cert ca.pem -keyfile ca-key.pem

request client "/O=$organisation/OU=ops/CN=web"
sign client client -cert ca.pem -keyfile ca-key.pem

openssl verify -x509_strict -CAfile ca.pem -purpose sslserver -verify_hostname localhost server.pem
openssl verify -x509_strict -CAfile ca.pem -purpose sslserver -verify_ip 127.0.0.1 server.pem
openssl verify -x509_strict -CAfile ca.pem -purpose sslserver -verify_ip ::1 server.pem
openssl verify -x509_strict -CAfile ca.pem -purpose sslclient client.pem

# World-readable on purpose: a fresh git checkout has them so, and they are no secret.
install -m 0644 {ca,server,client}.pem {ca,server,client}-key.pem "$here"
