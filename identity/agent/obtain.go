package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/channel"
)

// way is one way to reach the control plane and to prove who we are.
type way struct {
	name, network, address string
	transport              grpccredentials.TransportCredentials
	token                  attest.JoinToken
	tokenFile              string
}

// ways lists what can be tried now, the cheapest proof first: the SVID we have, then the
// token through the Unix socket, then the token by TCP, then that of Kubernetes.
func (a *Agent) ways() ([]way, error) {
	var ways []way
	if _, err := a.GetX509SVID(); err == nil && a.config.Address != "" {
		config, err := channel.Client(a, a, a.server)
		if err != nil {
			return nil, err
		}
		ways = append(ways, way{"renew by SVID", "tcp", a.config.Address, grpccredentials.NewTLS(config), "", ""})
	}
	if a.config.Token != "" && a.config.Socket != "" {
		ways = append(ways, way{"join by Unix socket", "unix", a.config.Socket, attest.UnixCredentials(), a.config.Token, ""})
	}
	if a.config.Token != "" && a.config.Address != "" {
		config, err := a.firstContact()
		if err != nil {
			return nil, err
		}
		ways = append(ways, way{"join by TCP", "tcp", a.config.Address, grpccredentials.NewTLS(config), a.config.Token, ""})
	}
	if a.config.TokenFile != "" {
		trusts, err := a.laterContact()
		if err != nil {
			return nil, err
		}
		for _, config := range trusts {
			ways = append(ways, way{"join by service account token", "tcp", a.config.Address, grpccredentials.NewTLS(config), "", a.config.TokenFile})
		}
	}
	if len(ways) == 0 {
		return nil, errors.New("no valid SVID to renew and no join token: give one made by heddle token create")
	}
	return ways, nil
}

// firstContact trusts the control plane by the bundle or the roots that were given, or by
// the root that the token names.
func (a *Agent) firstContact() (*tls.Config, error) {
	if a.config.Bundle != nil {
		return channel.Client(nil, a.config.Bundle, a.server)
	}
	if len(a.config.Roots) > 0 {
		return channel.PinnedClient(a.server, a.config.Roots...)
	}
	root, err := a.config.Token.Root()
	if err != nil {
		return nil, err
	}
	return channel.PinnedClient(a.server, root)
}

// laterContact trusts the control plane by the bundle that came with the last SVID, if
// there is one, and by what was given. The roots that a pod was given are never changed,
// while those of the mesh may be rotated, and its SVID expire, in a pod's long life.
func (a *Agent) laterContact() ([]*tls.Config, error) {
	first, err := a.firstContact()
	if err != nil || a.current.Load() == nil {
		return []*tls.Config{first}, err
	}
	later, err := channel.Client(nil, a, a.server)
	return []*tls.Config{later, first}, err
}

// obtain makes a key and gets it certified, by the first way that works.
func (a *Agent) obtain(ctx context.Context) (*credentials, error) {
	ways, err := a.ways()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, w := range ways {
		got, err := a.obtainBy(ctx, w)
		if err == nil {
			return got, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
	}
	return nil, errors.Join(errs...)
}

// obtainBy uses a connection of its own: a lasting one would keep the certificate of its
// handshake, which expires.
func (a *Agent) obtainBy(ctx context.Context, w way) (*credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	account, err := w.accountToken()
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	uri, err := url.Parse(a.config.ID.String())
	if err != nil {
		return nil, fmt.Errorf("SPIFFE ID as URI: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{uri}}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate signing request: %w", err)
	}
	conn, err := grpc.NewClient("passthrough:///"+w.address,
		grpc.WithTransportCredentials(w.transport),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return a.config.DialContext(ctx, w.network, address)
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", w.address, err)
	}
	defer conn.Close()
	response, err := identityv1.NewIdentityClient(conn).SignSVID(ctx, &identityv1.SignSVIDRequest{
		Csr: csr, JoinToken: w.token.Reveal(), ServiceAccountToken: account.Reveal(),
		Namespace: a.config.ID.Namespace(), Service: a.config.ID.ServiceAccount(),
	})
	if err != nil {
		s := status.Convert(err)
		return nil, fmt.Errorf("control plane at %s: %s (%s)%s", w.address, s.Message(), s.Code(), clockAdvice(s.Message()))
	}
	return a.accept(key, response)
}

// clockAdvice is what to do about a certificate whose time is not now (crypto/x509's words,
// which gRPC gives as text only).
func clockAdvice(message string) string {
	if strings.Contains(message, "has expired or is not yet valid") {
		return "; compare the clocks of this machine and of the control plane's"
	}
	return ""
}

// maxAccountToken bounds a service account token, in bytes; one has about 1,300.
const maxAccountToken = 16 << 10

// accountToken reads the service account token of a way that has one. Unlike our own files
// it may be another user's and readable for a group: the kubelet owns it.
func (w way) accountToken() (attest.ServiceAccountToken, error) {
	if w.tokenFile == "" {
		return "", nil
	}
	f, err := os.Open(w.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read the service account token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAccountToken+1))
	if err != nil {
		return "", fmt.Errorf("read the service account token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(token) > maxAccountToken {
		return "", fmt.Errorf("service account token in %s has %d bytes, not 1 to %d", w.tokenFile, len(token), maxAccountToken)
	}
	return attest.ServiceAccountToken(token), nil
}

const (
	maxChain  = 8  // certificates of an SVID
	maxBundle = 32 // roots of a trust domain
)

// accept checks what the control plane answered before anybody uses it.
func (a *Agent) accept(key *ecdsa.PrivateKey, response *identityv1.SignSVIDResponse) (*credentials, error) {
	chain, err := parseCertificates("chain", response.GetChain(), maxChain)
	if err != nil {
		return nil, err
	}
	roots, err := parseCertificates("bundle", response.GetBundle(), maxBundle)
	if err != nil {
		return nil, err
	}
	td, err := gospiffe.TrustDomainFromString(a.config.ID.TrustDomain())
	if err != nil {
		return nil, err
	}
	got := &credentials{
		svid:   &x509svid.SVID{Certificates: chain, PrivateKey: key},
		bundle: x509bundle.FromX509Authorities(td, roots),
	}
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, errors.New("the control plane certified another key than ours")
	}
	if err := a.check(got, time.Now()); err != nil {
		return nil, err
	}
	return got, nil
}

// check verifies that c is a valid SVID of this workload, and completes its ID.
func (a *Agent) check(c *credentials, now time.Time) error {
	id, _, err := x509svid.Verify(c.svid.Certificates, c.bundle, x509svid.WithTime(now))
	if err != nil {
		return fmt.Errorf("verify SVID: %w%s", err, clockAdvice(err.Error()))
	}
	if id.String() != a.config.ID.String() {
		return fmt.Errorf("the SVID is of %s, not of %s", id, a.config.ID)
	}
	c.svid.ID = id
	return nil
}

func parseCertificates(what string, raw [][]byte, limit int) ([]*x509.Certificate, error) {
	if len(raw) == 0 || len(raw) > limit {
		return nil, fmt.Errorf("the control plane's answer has %d certificates as %s, not 1 to %d", len(raw), what, limit)
	}
	var certs []*x509.Certificate
	for i, der := range raw {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the %s: %w", i+1, what, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}
