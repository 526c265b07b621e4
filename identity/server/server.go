package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
)

// Config has the parts that the service joins.
type Config struct {
	CA        *ca.CA            // required
	Tokens    *attest.Tokens    // required
	Attestors []attest.Attestor // tried in order; nil: DefaultAttestors
	Log       *slog.Logger      // nil: no log

	// Rotate begins a rotation of the root; nil: CA.PrepareRoot. It is another where
	// replicas share a root.
	Rotate func(context.Context) error

	// SignRate is how many SignSVID calls one peer (a uid, an address or an SVID) may make
	// a second, and SignBurst how many at once. Defaults: DefaultSignRate, DefaultSignBurst.
	SignRate, SignBurst float64
}

const (
	// DefaultSignRate costs about a tenth of a core.
	DefaultSignRate = 500
	// DefaultSignBurst lets all workloads of a big machine restart together.
	DefaultSignBurst = 10_000
)

// Server implements the Identity service.
type Server struct {
	identityv1.UnimplementedIdentityServer
	ca     *ca.CA
	tokens *attest.Tokens
	attest attest.Attestor
	rotate func(context.Context) error
	log    *slog.Logger
	rate   *limiter
	busy   chan struct{} // holds one element per SignSVID at work
	owner  uint32        // uid of the control plane
}

// DefaultAttestors take a join token, else the SVID of the TLS peer.
func DefaultAttestors(authority *ca.CA, tokens *attest.Tokens) []attest.Attestor {
	return []attest.Attestor{tokens.Attest, attest.SVID(authority, authority.TrustDomain().Name(), tokens)}
}

// New makes the service.
func New(config Config) (*Server, error) {
	if config.CA == nil || config.Tokens == nil {
		return nil, errors.New("identity server: needs a CA and a token store")
	}
	if config.Attestors == nil {
		config.Attestors = DefaultAttestors(config.CA, config.Tokens)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Rotate == nil {
		config.Rotate = func(context.Context) error { return config.CA.PrepareRoot() }
	}
	if config.SignRate <= 0 {
		config.SignRate = DefaultSignRate
	}
	if config.SignBurst < 1 {
		config.SignBurst = DefaultSignBurst
	}
	return &Server{
		ca:     config.CA,
		tokens: config.Tokens,
		attest: attest.First(config.Attestors...),
		rotate: config.Rotate,
		log:    config.Log,
		rate:   newLimiter(config.SignRate, config.SignBurst),
		busy:   make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		owner:  uint32(os.Geteuid()),
	}, nil
}

// TCPOptions secure the control plane's TCP port: TLS with its own SVID, every method
// but Identity.SignSVID for holders of an SVID only. Connections are told to go (GOAWAY)
// at half the life of an SVID, so that the next call comes with a fresh one; streams that
// are open go on.
func TCPOptions(authority *ca.CA) ([]grpc.ServerOption, error) {
	own, err := NewOwnSVID(authority)
	if err != nil {
		return nil, fmt.Errorf("control plane's SVID: %w", err)
	}
	td := authority.TrustDomain()
	options := channel.RequireSVID(authority, td, identityv1.Identity_SignSVID_FullMethodName)
	options = append(options, channel.ServerAlive(authority.SVIDTTL()/2)...)
	return append(options, grpc.Creds(credentials.NewTLS(channel.Server(own, authority, td)))), nil
}
