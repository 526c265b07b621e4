package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/heddle-mesh/heddle/identity/statefile"
)

const (
	rootFile = "root.pem"      // certificate and key that sign
	nextFile = "root-next.pem" // certificate and key that will sign after ActivateRoot
	oldFile  = "root-old.pem"  // certificates that signed before; their keys are gone

	maxRootFile = 64 << 10         // bytes; a root and its key are about 1 KiB
	clockSkew   = 10 * time.Minute // clocks of machines are this far apart at most; twice what Kerberos allows (RFC 4120, 8.2)
)

// oldRoot is a root that signs no more, but whose SVIDs may be alive.
type oldRoot struct {
	cert     *x509.Certificate
	replaced time.Time
}

// load reads all root files, makes the first root if there is none, and publishes the
// result with a fresh intermediate. c.mu is held.
func (c *CA) load() error {
	now := c.config.Now()
	files, err := ReadFiles(c.dir)
	if err != nil {
		return err
	}
	if files[rootFile] == nil {
		if _, err := c.createRoot(rootFile, now); err != nil {
			return err
		}
		if files, err = ReadFiles(c.dir); err != nil {
			return err
		}
	}
	a, err := c.parse(files, c.path)
	if err != nil {
		return err
	}
	if now.After(a.root.cert.NotAfter) {
		return fmt.Errorf("root certificate %s expired on %s; move it away to make a new trust root (every workload must then attest again)",
			c.path(rootFile), a.root.cert.NotAfter.Format(time.DateTime))
	}
	return c.publish(a, now)
}

// parse reads the files of an authority, which errors call by where.
func (c *CA) parse(files Files, where func(name string) string) (a *authority, err error) {
	a = new(authority)
	if a.root, err = c.parsePair(where(rootFile), files[rootFile]); err != nil {
		return nil, err
	}
	if data, ok := files[nextFile]; ok {
		if a.next, err = c.parsePair(where(nextFile), data); err != nil {
			return nil, err
		}
	}
	if a.old, err = parseOldRoots(files[oldFile]); err != nil {
		return nil, fmt.Errorf("read former roots %s: %w", where(oldFile), err)
	}
	if a.links, err = parseLinks(files[linkFile]); err != nil {
		return nil, fmt.Errorf("read links of roots %s: %w", where(linkFile), err)
	}
	return a, nil
}

// publish gives a a new intermediate and its bundle, and makes it current. c.mu is held.
func (c *CA) publish(a *authority, now time.Time) error {
	if !a.issued() {
		if err := c.renewIntermediate(a, now); err != nil {
			return err
		}
	}
	a.bundle = x509bundle.FromX509Authorities(c.trustDomain, a.roots())
	if before := c.current.Load(); before != nil && before.bundle.Equal(a.bundle) {
		c.current.Store(a) // a new intermediate only
		return nil
	}
	c.changed.Change(func() { c.current.Store(a) })
	return nil
}

// renewIntermediate makes a new intermediate. It never outlives its root.
func (c *CA) renewIntermediate(a *authority, now time.Time) error {
	end := earlier(now.Add(c.config.IntermediateTTL), a.root.cert.NotAfter)
	intermediate, err := newAuthority(c.config.TrustDomain, "intermediate", now.Add(-clockSkew), end, a.root)
	if err != nil {
		return err
	}
	a.intermediate = intermediate
	c.config.Log.Debug("made an intermediate", "trust_domain", c.config.TrustDomain, "expires", end)
	return nil
}

// roots lists each root once, the signing one first.
func (a *authority) roots() []*x509.Certificate {
	roots := append([]*x509.Certificate{a.root.cert}, a.more...)
	if a.next != nil {
		roots = append(roots, a.next.cert)
	}
	for _, o := range a.old {
		if !o.cert.Equal(a.root.cert) { // the same after a crash half-way through ActivateRoot
			roots = append(roots, o.cert)
		}
	}
	return roots
}

func (c *CA) createRoot(file string, now time.Time) (*keyPair, error) {
	root, err := newAuthority(c.config.TrustDomain, "root", now.Add(-clockSkew), now.Add(c.config.RootTTL), nil)
	if err != nil {
		return nil, err
	}
	data, err := root.marshal()
	if err != nil {
		return nil, err
	}
	if err := statefile.Write(c.path(file), data); err != nil {
		return nil, err
	}
	c.config.Log.Info("made a root certificate", "trust_domain", c.config.TrustDomain, "expires", root.cert.NotAfter)
	return root, nil
}

func (c *CA) parsePair(path string, data []byte) (*keyPair, error) {
	pair, err := parseKeyPair(data)
	if err != nil {
		return nil, fmt.Errorf("read root %s: %w", path, err)
	}
	if uris := pair.cert.URIs; len(uris) != 1 || uris[0].String() != c.trustDomain.IDString() {
		return nil, fmt.Errorf("read root %s: it is of trust domain %v, not %s; give another directory or the right trust domain",
			path, uris, c.trustDomain.IDString())
	}
	return pair, nil
}

func parseOldRoots(data []byte) ([]oldRoot, error) {
	roots, err := parseTrusted(data)
	if err != nil {
		return nil, err
	}
	var old []oldRoot
	for i, t := range roots {
		if t.replaced.IsZero() {
			return nil, fmt.Errorf("certificate %d: header %s: it has no time", i+1, replacedHeader)
		}
		old = append(old, oldRoot{t.cert, t.replaced})
	}
	return old, nil
}

// writeOld stores the former roots; with none it removes the file.
func (c *CA) writeOld(old []oldRoot) error {
	if len(old) == 0 {
		if err := os.Remove(c.path(oldFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove former roots: %w", err)
		}
		return statefile.Sync(c.dir)
	}
	var roots []trusted
	for _, o := range old {
		roots = append(roots, trusted{cert: o.cert, replaced: o.replaced})
	}
	return statefile.Write(c.path(oldFile), marshalTrusted(roots))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
