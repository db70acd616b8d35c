package bus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority issues certificates for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), pool: x509.NewCertPool()}
	a.cert, a.key = a.issue(t, name, true)
	a.pool.AddCert(a.cert)
	return a
}

// issue writes name.crt and name.key into the authority's folder.
func (a *authority) issue(t *testing.T, name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, IsCA: ca, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// A broker that asks for a client certificate gets the one in the files, as they are at the time of the connection.
func TestClientCertificates(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	ca.issue(t, "broker", false)
	ca.issue(t, "client", false)
	stranger.issue(t, "client", false)
	own, err := tls.LoadX509KeyPair(ca.file("broker.crt"), ca.file("broker.key"))
	if err != nil {
		t.Fatal(err)
	}
	handshake := func(t *testing.T, c Config) error {
		t.Helper()
		config, err := c.tls("broker")
		if err != nil {
			t.Fatal(err)
		}
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		asks := &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert,
			ClientCAs: ca.pool, MinVersion: tls.VersionTLS12}
		result := make(chan error, 1)
		go func() { result <- tls.Server(server, asks).HandshakeContext(t.Context()) }()
		conn := tls.Client(client, config)
		go func() { _, _ = conn.Read(make([]byte, 1)) }() // the server's verdict comes after the client's handshake
		return <-result
	}
	c := Config{CAFile: ca.file("ca.crt")}
	if err := handshake(t, c); err == nil {
		t.Error("the broker was content without a client certificate")
	}
	c.CertFile, c.KeyFile = stranger.file("client.crt"), stranger.file("client.key")
	if err := handshake(t, c); err == nil {
		t.Error("the broker took a stranger's certificate")
	}
	for _, file := range []string{"client.crt", "client.key"} { // the same files, renewed
		if err := os.Rename(ca.file(file), stranger.file(file)); err != nil {
			t.Fatal(err)
		}
	}
	if err := handshake(t, c); err != nil {
		t.Error(err)
	}
	c.KeyFile = ""
	if err := c.Validate(); err == nil {
		t.Error("a certificate without its key is valid")
	}
}
