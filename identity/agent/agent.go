package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/broadcast"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/identity/statefile"
)

// Config says whose SVID to keep, and where to get it.
type Config struct {
	ID  spiffeid.ID // the workload's identity; required
	Dir string      // private directory for the copy on disk, made if needed; required

	// Socket is the path of the control plane's Unix socket, Address the host:port of its
	// TCP port; at least one is required. Renewal by SVID needs Address.
	Socket, Address string

	// Token and TokenFile are for the first SVID and after one has expired; both may be "".
	// TokenFile is the path of a Kubernetes service account token, which the kubelet
	// replaces now and then: it is read at every attempt.
	Token     attest.JoinToken
	TokenFile string

	// Bundle and Roots are what to trust on the first contact by TCP: Bundle, or a control
	// plane with one of Roots, or the root that Token names.
	Bundle *x509bundle.Bundle
	Roots  []attest.Fingerprint
	Log    *slog.Logger // nil: no log

	// DialContext opens connections; network is "unix" or "tcp". Nil: net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Agent holds the SVID. It is safe for concurrent use, and prints as its identity only.
type Agent struct {
	config  Config
	server  spiffeid.ID
	current atomic.Pointer[credentials] // nil before the first SVID; frozen once stored
	updated broadcast.Signal
	poke    chan struct{}

	mu     sync.Mutex // guards status
	status Status
}

// credentials are what the workload has at one time.
type credentials struct {
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
}

func (c *credentials) expires() time.Time { return c.svid.Certificates[0].NotAfter }

// Format keeps the key out of logs whatever the verb.
func (c *credentials) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "credentials of %s", c.svid.ID) }

// Status is for people who ask how the identity is.
type Status struct {
	ID        spiffeid.ID
	Expires   time.Time // zero before the first SVID
	RenewAt   time.Time // when the next attempt is due
	FromDisk  bool      // the SVID is from before this process
	LastError string    // of the last attempt, "" when it went well
	Failures  int       // attempts since the last that went well
	DiskError string    // why the copy on disk is not the newest, "" when it is

	Chain []*x509.Certificate // of the SVID, leaf first; nil before the first SVID
}

// New makes an agent and loads the SVID that an earlier one left, if it is still valid.
// It does not talk to the control plane: Run does.
func New(config Config) (*Agent, error) {
	if config.ID.IsZero() {
		return nil, errors.New("identity agent: no identity given")
	}
	if config.Socket == "" && config.Address == "" {
		return nil, errors.New("identity agent: neither socket nor address of the control plane given")
	}
	if config.TokenFile != "" && config.Address == "" {
		return nil, errors.New("identity agent: a service account token is sent by TCP only, and no address of the control plane is given")
	}
	if config.TokenFile != "" && config.Bundle == nil && len(config.Roots) == 0 {
		return nil, errors.New("identity agent: no root is given by which to recognise the control plane, to which the service account token goes")
	}
	server, err := channel.ControlPlane(config.ID.TrustDomain())
	if err != nil {
		return nil, fmt.Errorf("identity agent: %w", err)
	}
	if err := statefile.MkdirAll(config.Dir); err != nil {
		return nil, fmt.Errorf("identity agent: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.DialContext == nil {
		config.DialContext = (&net.Dialer{}).DialContext
	}
	a := &Agent{config: config, server: server, poke: make(chan struct{}, 1), status: Status{ID: config.ID}}
	if loaded := a.load(); loaded != nil {
		a.current.Store(loaded)
		a.status.Expires, a.status.FromDisk = loaded.expires(), true
	}
	return a, nil
}

// Format keeps key and token out of logs whatever the verb.
func (a *Agent) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "identity agent of %s", a.config.ID) }

// GetX509SVID implements [x509svid.Source]. It is an error that says why when there is
// no SVID yet or it has expired.
func (a *Agent) GetX509SVID() (*x509svid.SVID, error) {
	c := a.current.Load()
	if c == nil {
		return nil, fmt.Errorf("no SVID for %s yet%s", a.config.ID, a.reason())
	}
	if !time.Now().Before(c.expires()) {
		return nil, fmt.Errorf("the SVID of %s expired at %s%s", a.config.ID, c.expires().Format(time.RFC3339), a.reason())
	}
	return c.svid, nil
}

// GetX509BundleForTrustDomain implements [x509bundle.Source].
func (a *Agent) GetX509BundleForTrustDomain(td gospiffe.TrustDomain) (*x509bundle.Bundle, error) {
	c := a.current.Load()
	if c == nil {
		return nil, fmt.Errorf("no trust bundle for %s yet%s", td, a.reason())
	}
	return c.bundle.GetX509BundleForTrustDomain(td)
}

// Updated is closed when the SVID or the bundle changes next. Take it before reading.
func (a *Agent) Updated() <-chan struct{} { return a.updated.C() }

// Renew asks Run to renew now, without waiting for the result.
func (a *Agent) Renew() {
	select {
	case a.poke <- struct{}{}:
	default: // asked already
	}
}

// Ready waits for a valid SVID.
func (a *Agent) Ready(ctx context.Context) error {
	for {
		updated := a.Updated()
		if _, err := a.GetX509SVID(); err == nil {
			return nil
		}
		select {
		case <-updated:
		case <-ctx.Done():
			return fmt.Errorf("wait for the SVID of %s: %w%s", a.config.ID, context.Cause(ctx), a.reason())
		}
	}
}

// Status reports how the identity is.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	status := a.status
	if c := a.current.Load(); c != nil {
		status.Chain = c.svid.Certificates
	}
	return status
}

func (a *Agent) reason() string {
	if last := a.Status().LastError; last != "" {
		return ": " + last
	}
	return ""
}

func (a *Agent) setStatus(change func(*Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.status)
}
