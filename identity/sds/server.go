package sds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"

	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
)

// Source is where the secrets come from: identity/agent, or anything like it.
type Source interface {
	x509svid.Source
	x509bundle.Source
	// Updated is closed at the next change of SVID or bundle.
	Updated() <-chan struct{}
}

// Server implements Envoy's SecretDiscoveryService: DeltaSecrets and StreamSecrets.
// FetchSecrets is UNIMPLEMENTED.
type Server struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	source Source
	td     gospiffe.TrustDomain
	log    *slog.Logger
}

// New makes a server of the source's SVID and of its bundle for the trust domain. A nil
// log means none.
func New(source Source, trustDomain gospiffe.TrustDomain, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{source: source, td: trustDomain, log: log}
}

// secrets encodes what there is now. What there is not yet is left out: Envoy waits.
func (s *Server) secrets() map[string]*secret {
	all := map[string]*secret{}
	add := func(made *secret, err error) {
		if err != nil {
			s.log.Warn("secret not served", "error", err)
			return
		}
		all[made.name] = made
	}
	if svid, err := s.source.GetX509SVID(); err == nil {
		add(svidSecret(svid))
	}
	if bundle, err := s.source.GetX509BundleForTrustDomain(s.td); err == nil {
		add(bundleSecret(bundle))
	}
	return all
}

// serve runs one stream: it takes requests from recv, and calls send with what is due
// after each request and each change of the source.
func serve[Request any](ctx context.Context, s *Server, recv func() (Request, error), take func(*session, Request), send func([]*secret, string) error) error {
	requests, ended := make(chan Request), make(chan error, 1)
	go func() { // ends with the stream: gRPC makes recv return once serve has
		for {
			request, err := recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	}()
	state := newSession()
	updated := s.source.Updated()
	newest := s.secrets()
	for {
		select {
		case request := <-requests:
			take(state, request)
		case <-updated:
			updated = s.source.Updated()
			newest = s.secrets()
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return nil
		}
		if due, nonce := state.next(newest); nonce != "" {
			if err := send(due, nonce); err != nil {
				return err
			}
		}
	}
}

// answer books an ACK or a NACK.
func (s *Server) answer(state *session, nonce string, refused *rpcstatus.Status) bool {
	if !state.answered(nonce) {
		return false
	}
	if refused != nil {
		s.log.Warn("Envoy refused a secret and keeps the one it has", "sent", state.sent, "error", safe(refused.GetMessage()))
	}
	return true
}

// safe bounds a message of Envoy's, and drops it should it quote a key.
func safe(message string) string {
	const limit = 500
	if strings.Contains(message, "PRIVATE KEY") {
		return "(message withheld: it quotes a key)"
	}
	return message[:min(len(message), limit)]
}
