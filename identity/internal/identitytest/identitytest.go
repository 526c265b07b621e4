// Package identitytest runs a real control plane's identity service inside a test: the
// CA, the token store and the gRPC server, over memory or a Unix socket.
package identitytest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/server"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// TrustDomain is the one that tests use.
const TrustDomain = "shop.example"

// ControlPlane is a running identity service. Its "TCP" port is in memory, so that it
// works in a synctest bubble; reach it through DialContext.
type ControlPlane struct {
	CA      *ca.CA
	Tokens  *attest.Tokens
	Service *server.Server
	// Attest, if set, is asked who somebody is before the usual attestors are.
	Attest attest.Attestor
	t      testing.TB

	mu       sync.Mutex // guards listener and stop
	listener *bufconn.Listener
	stop     func()
}

// New makes a control plane with its state under dir; Start starts it.
func New(t testing.TB, dir string, configure ...func(*ca.Config)) *ControlPlane {
	t.Helper()
	config := ca.DefaultConfig()
	config.TrustDomain = TrustDomain
	for _, c := range configure {
		c(&config)
	}
	authority, err := ca.Open(filepath.Join(dir, "ca"), config)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := attest.OpenTokens(filepath.Join(dir, "tokens"), config.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	c := &ControlPlane{CA: authority, Tokens: tokens, t: t}
	attestors := append([]attest.Attestor{c.attest}, server.DefaultAttestors(authority, tokens)...)
	if c.Service, err = server.New(server.Config{CA: authority, Tokens: tokens, Attestors: attestors}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *ControlPlane) attest(ctx context.Context, e attest.Evidence) (attest.Attested, error) {
	if c.Attest == nil {
		return attest.Attested{}, attest.ErrNotMine
	}
	return c.Attest(ctx, e)
}

// Start serves the TCP port until Stop or the end of the test.
func (c *ControlPlane) Start() {
	c.t.Helper()
	options, err := server.TCPOptions(c.CA)
	if err != nil {
		c.t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	stop := c.serve(listener, options...)
	c.mu.Lock()
	c.listener, c.stop = listener, stop
	c.mu.Unlock()
	c.t.Cleanup(stop)
}

// StartUnix serves the Unix socket at path until the end of the test.
func (c *ControlPlane) StartUnix(path string) {
	c.t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.serve(listener, grpc.Creds(attest.UnixCredentials())))
}

func (c *ControlPlane) serve(listener net.Listener, options ...grpc.ServerOption) (stop func()) {
	s := grpc.NewServer(options...)
	identityv1.RegisterIdentityServer(s, c.Service)
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	return sync.OnceFunc(func() {
		s.Stop()
		if err := <-done; err != nil {
			c.t.Errorf("identity service: %v", err)
		}
	})
}

// Stop kills the TCP port; Start brings it back.
func (c *ControlPlane) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop()
	c.listener = nil
}

// DialContext connects to the control plane: any TCP address is its port in memory.
func (c *ControlPlane) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "unix" {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	c.mu.Lock()
	listener := c.listener
	c.mu.Unlock()
	if listener == nil {
		return nil, errors.New("connection refused: the control plane is stopped")
	}
	return listener.DialContext(ctx)
}

// Token makes a join token of an hour for id.
func (c *ControlPlane) Token(id spiffeid.ID, change ...func(*attest.TokenSpec)) attest.JoinToken {
	c.t.Helper()
	spec := attest.TokenSpec{ID: id, TTL: time.Hour}
	for _, f := range change {
		f(&spec)
	}
	token, _, err := c.Tokens.Create(spec, channel.FingerprintOf(c.CA.Bundle().X509Authorities()[0]))
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

// ID is the identity of a service in namespace default of the test's trust domain.
func ID(t testing.TB, service string) spiffeid.ID {
	t.Helper()
	id, err := spiffeid.New(TrustDomain, "default", service)
	if err != nil {
		t.Fatal(fmt.Errorf("service %s: %w", service, err))
	}
	return id
}
