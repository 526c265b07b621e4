package ca

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/heddle-mesh/heddle/identity/broadcast"
	"github.com/heddle-mesh/heddle/identity/statefile"
)

// Config says how long certificates live. Start from DefaultConfig.
type Config struct {
	TrustDomain     string           // name of the trust domain, as "shop.example"; required
	SVIDTTL         time.Duration    // life of a workload's certificate
	IntermediateTTL time.Duration    // life of the intermediate; replaced at half of it
	RootTTL         time.Duration    // life of a root made from now on
	Log             *slog.Logger     // nil: no log
	Now             func() time.Time // the machine's clock; nil: time.Now
}

// DefaultConfig has every default with its reason.
func DefaultConfig() Config {
	return Config{
		SVIDTTL:         time.Hour,                 // half of it is how long a dead control plane is tolerated
		IntermediateTTL: 7 * 24 * time.Hour,        // a leaked one is useless after a week
		RootTTL:         10 * 365 * 24 * time.Hour, // rotated by heddle ca rotate; heddle check warns long before
	}
}

// MinSVIDTTL is the shortest life of an SVID. Certificates count in whole seconds.
const MinSVIDTTL = 2 * time.Second

// Validate reports the first field with a bad value.
func (c Config) Validate() error {
	if _, err := gospiffe.TrustDomainFromString(c.TrustDomain); err != nil {
		return fmt.Errorf("trust domain %q: %w", c.TrustDomain, err)
	}
	if c.SVIDTTL < MinSVIDTTL {
		return fmt.Errorf("SVID TTL %v is below %v", c.SVIDTTL, MinSVIDTTL)
	}
	if c.IntermediateTTL < 4*c.SVIDTTL {
		return fmt.Errorf("intermediate TTL %v is below four SVID TTLs (%v): an intermediate serves half its life and must outlive what it signed", c.IntermediateTTL, 4*c.SVIDTTL)
	}
	if c.RootTTL < 4*c.IntermediateTTL {
		return fmt.Errorf("root TTL %v is below four intermediate TTLs (%v)", c.RootTTL, 4*c.IntermediateTTL)
	}
	return nil
}

// CA signs SVIDs of one trust domain. It is safe for concurrent use. It prints as its
// trust domain only, with any verb.
type CA struct {
	config      Config
	trustDomain gospiffe.TrustDomain
	dir         string
	changed     broadcast.Signal
	current     atomic.Pointer[authority] // frozen once stored

	mu sync.Mutex // held while current is replaced and while files change
}

// authority is what signs, and what verifiers must trust meanwhile.
type authority struct {
	root         *keyPair
	next         *keyPair // prepared successor of root, or nil
	old          []oldRoot
	links        []*x509.Certificate // see linkFile
	intermediate *keyPair

	// Of one that somebody else issues, who keeps the key of the root.
	signer *Issued
	more   []*x509.Certificate  // roots beside root
	above  []*x509.Certificate  // between the intermediate and a root
	since  map[string]time.Time // by DER, when a root came to be trusted; none: from the start
	// What signs from pendingAt on, or nil.
	pending   *Issued
	pendingAt time.Time

	bundle *x509bundle.Bundle
}

// Open loads the authority of the trust domain from dir, or makes it: directory 0700,
// root key and certificate in one file of mode 0600. It refuses files that others
// could read, a root of another trust domain, and one that has expired.
func Open(dir string, config Config) (*CA, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	config = config.withDefaults()
	if err := statefile.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	c := &CA{config: config, dir: dir, trustDomain: gospiffe.RequireTrustDomainFromString(config.TrustDomain)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	return c, nil
}

// Format keeps the keys out of logs whatever the verb.
func (c *CA) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "ca(%s)", c.trustDomain) }

// TrustDomain is the trust domain the authority speaks for.
func (c *CA) TrustDomain() gospiffe.TrustDomain { return c.trustDomain }

// SVIDTTL is the life of the SVIDs that Sign makes.
func (c *CA) SVIDTTL() time.Duration { return c.config.SVIDTTL }

// Bundle returns a copy of the roots that verifiers must trust: the active one first,
// then one that is prepared, then those whose SVIDs may still be alive.
func (c *CA) Bundle() *x509bundle.Bundle { return c.current.Load().bundle.Clone() }

// Root is the root that signs.
func (c *CA) Root() *x509.Certificate { return c.current.Load().root.cert }

// GetX509BundleForTrustDomain implements [x509bundle.Source].
func (c *CA) GetX509BundleForTrustDomain(td gospiffe.TrustDomain) (*x509bundle.Bundle, error) {
	return c.current.Load().bundle.GetX509BundleForTrustDomain(td)
}

// Changed is closed when the bundle changes next.
func (c *CA) Changed() <-chan struct{} { return c.changed.C() }

func (c *CA) path(name string) string { return filepath.Join(c.dir, name) }

// Expiry says when the parts of the authority end.
type Expiry struct {
	RootCreated, Root, Intermediate time.Time
	Issued                          bool // by somebody else, who renews them
}

// Expiry reports the ends of the certificates that sign now.
func (c *CA) Expiry() Expiry {
	a := c.current.Load()
	return Expiry{RootCreated: a.root.cert.NotBefore, Root: a.root.cert.NotAfter, Intermediate: a.intermediate.cert.NotAfter, Issued: a.issued()}
}

// Warning is a sentence for the operator when a tenth or less of the root's life is
// left, and "" before.
func (e Expiry) Warning(now time.Time) string {
	left, life := e.Root.Sub(now), e.Root.Sub(e.RootCreated)
	switch {
	case left <= 0:
		return fmt.Sprintf("the root certificate expired on %s: no SVID can be issued or verified", e.Root.Format(time.DateOnly))
	case left <= life/10:
		return fmt.Sprintf("the root certificate expires on %s: rotate it now", e.Root.Format(time.DateOnly))
	}
	return ""
}
