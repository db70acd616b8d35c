package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/resolve"
	"orderflow.internal/kit/run"
)

// names are the brokers' hosts, which are looked up for each new connection.
var names resolve.Names

// Config says how to reach the broker and how to work with it.
type Config struct {
	URL          string `env:"AMQP_URL" help:"RabbitMQ URL, e.g. amqp://user:password@host:5672/; amqps:// for TLS"`
	UsernameFile string `env:"AMQP_USERNAME_FILE" help:"file with the broker user's name; with AMQP_PASSWORD_FILE it takes the place of the URL's and is read again for every new connection"`
	PasswordFile string `env:"AMQP_PASSWORD_FILE" help:"file with the broker user's password"`
	CAFile       string `env:"AMQP_CA_FILE" help:"PEM file of the authority that signed the broker's certificate; the system's authorities otherwise"`
	CertFile     string `env:"AMQP_CERT_FILE" help:"PEM file of a client certificate, for a broker that asks for one; with AMQP_KEY_FILE, and both are read again for every new connection"`
	KeyFile      string `env:"AMQP_KEY_FILE" help:"PEM file of the client certificate's key"`

	Prefetch int `env:"BUS_PREFETCH" envDefault:"256" help:"most unacknowledged messages of one queue"`
	Batch    int `env:"BUS_BATCH" envDefault:"128" help:"most messages handled in one transaction"`
	// Linger trades a little latency under load for larger batches: it only
	// applies after a batch of more than one message, never to messages that come
	// one by one.
	Linger     time.Duration `env:"BUS_LINGER" envDefault:"2ms" help:"how long a busy consumer lets a batch grow before it handles it"`
	RetryDelay time.Duration `env:"BUS_RETRY_DELAY" envDefault:"200ms" help:"delay before a failed message is retried; doubles with each attempt up to 30s. 0 leaves delays to the broker"`
	// ConfirmTimeout bounds the wait for a publisher confirm. An alarm of the
	// broker stops the clock.
	ConfirmTimeout time.Duration `env:"BUS_CONFIRM_TIMEOUT" envDefault:"5s" help:"longest wait for the broker to confirm a published message"`
	// DrainTimeout bounds how long a stopping consumer keeps handling what
	// it has already received.
	DrainTimeout time.Duration `env:"BUS_DRAIN_TIMEOUT" envDefault:"4s" help:"longest time to finish received messages when stopping; the rest is given back"`
}

// Validate reports every bad field. The URL itself never appears in the
// error: it holds a password.
func (c Config) Validate() error {
	var errs []error
	if c.URL == "" {
		errs = append(errs, errors.New("AMQP_URL: is required"))
	} else if _, err := amqp.ParseURI(c.URL); err != nil {
		errs = append(errs, errors.New("AMQP_URL: is not an amqp:// or amqps:// URL"))
	}
	if (c.UsernameFile == "") != (c.PasswordFile == "") {
		errs = append(errs, errors.New("AMQP_USERNAME_FILE: and AMQP_PASSWORD_FILE go together"))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("AMQP_CERT_FILE: and AMQP_KEY_FILE go together"))
	}
	if c.Prefetch < 1 || c.Prefetch > 65_535 {
		errs = append(errs, errors.New("BUS_PREFETCH: must be 1 to 65535"))
	}
	if c.Batch < 1 || c.Batch > c.Prefetch {
		errs = append(errs, errors.New("BUS_BATCH: must be 1 to BUS_PREFETCH"))
	}
	if c.Linger < 0 || c.Linger > time.Second {
		errs = append(errs, errors.New("BUS_LINGER: must be 0 to 1s"))
	}
	if c.RetryDelay < 0 || c.RetryDelay > maxRetryDelay {
		errs = append(errs, fmt.Errorf("BUS_RETRY_DELAY: must be 0 to %s", maxRetryDelay))
	}
	if c.ConfirmTimeout <= 0 {
		errs = append(errs, errors.New("BUS_CONFIRM_TIMEOUT: must be positive"))
	}
	if c.DrainTimeout <= 0 {
		errs = append(errs, errors.New("BUS_DRAIN_TIMEOUT: must be positive"))
	}
	return errors.Join(errs...)
}

// dial opens a connection that the broker's pages show under name, or gives up
// after answerTimeout. Files are read again each time, so a rotated password or
// authority serves the next connection.
func (c Config) dial(ctx context.Context, name string) (*connection, error) {
	uri, err := c.uri()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(name)
	conn := &connection{}
	config := amqp.Config{
		SASL:       []amqp.Authentication{uri.PlainAuth()},
		Vhost:      uri.Vhost,
		Heartbeat:  heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			tcp, err := names.Dial(ctx, net.Dialer{}, network, addr)
			if err != nil {
				return nil, err
			}
			conn.socket = &socket{Conn: tcp}
			// Bounds the handshake; the library lifts it afterwards.
			deadline, _ := ctx.Deadline()
			return conn.socket, conn.socket.SetDeadline(deadline)
		},
	}
	if uri.Scheme == "amqps" {
		if config.TLSClientConfig, err = c.tls(uri.Host); err != nil {
			return nil, err
		}
	}
	// What the library makes of the URI leaves out the heartbeat that it may ask for.
	if conn.Connection, err = amqp.DialConfig(uri.String(), config); err != nil {
		return nil, brokerError(err)
	}
	return conn, nil
}

// uri is the broker's, with today's credentials. Its error does not quote it.
func (c Config) uri() (amqp.URI, error) {
	uri, err := amqp.ParseURI(c.URL)
	if err != nil {
		return uri, errors.New("AMQP_URL: is not an amqp:// or amqps:// URL")
	}
	if c.UsernameFile == "" {
		return uri, nil
	}
	if uri.Username, err = run.ReadLine(c.UsernameFile); err == nil {
		uri.Password, err = run.ReadLine(c.PasswordFile)
	}
	if err != nil {
		return uri, fmt.Errorf("read broker credentials: %w", err)
	}
	return uri, nil
}

func (c Config) tls(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("AMQP_CERT_FILE %s and AMQP_KEY_FILE %s: %w", c.CertFile, c.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	if c.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the broker's authority: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("AMQP_CA_FILE: %s holds no PEM certificate", c.CAFile)
	}
	return config, nil
}
