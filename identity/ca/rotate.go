package ca

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/heddle-mesh/heddle/identity/statefile"
)

// A root is replaced in three steps, each safe to repeat after a crash:
//
//	PrepareRoot   the new root is made and trusted, the old one signs
//	ActivateRoot  the new root signs, the old one is still trusted
//	RetireRoots   the old root is no longer trusted
//
// Between two steps lies at least one SVID TTL: by then every live workload has renewed
// its SVID and with it got the newest bundle, and no SVID of the former root is alive.

// ErrTooEarly is the kind of error of a rotation step that would cut off workloads.
var ErrTooEarly = errors.New("too early")

// ErrIssued is the kind of error of a step that is not ours to take.
var ErrIssued = errors.New("the root is issued by somebody else, and replaced there")

// activation is when all workloads know the root that is prepared.
func (a *authority) activation(ttl time.Duration) time.Time {
	return a.next.cert.NotBefore.Add(clockSkew + ttl)
}

// retirement is when no SVID of a former root is left; zero where there is none.
func (a *authority) retirement(ttl time.Duration) (at time.Time) {
	for _, o := range a.old {
		if end := o.replaced.Add(ttl + clockSkew); end.After(at) {
			at = end
		}
	}
	return at
}

// PrepareRoot makes the next root and adds it to the bundle. A second call changes nothing.
func (c *CA) PrepareRoot() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := *c.current.Load()
	if a.issued() {
		return fmt.Errorf("prepare root: %w", ErrIssued)
	}
	if a.next != nil {
		return nil
	}
	now := c.config.Now()
	next, err := c.createRoot(nextFile, now)
	if err != nil {
		return fmt.Errorf("prepare root: %w", err)
	}
	a.next = next
	return c.publish(&a, now)
}

// ActivateRoot makes the prepared root the one that signs. The old key is destroyed.
// It is ErrTooEarly until one SVID TTL after PrepareRoot.
func (c *CA) ActivateRoot() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, now := *c.current.Load(), c.config.Now()
	if a.next == nil {
		return errors.New("activate root: no root is prepared; prepare one first")
	}
	if at := a.activation(c.config.SVIDTTL); now.Before(at) {
		return fmt.Errorf("activate root: %w: workloads may not know it before %s", ErrTooEarly, at.Format(time.RFC3339))
	}
	old := append([]oldRoot{{a.root.cert, now}}, a.old...)
	one, err := link(a.next, a.root)
	if err != nil {
		return fmt.Errorf("activate root: %w", err)
	}
	links := linked(a.links, one, a.root.cert)
	if err := statefile.Write(c.path(linkFile), marshalCertificates(links)); err != nil {
		return fmt.Errorf("activate root: %w", err)
	}
	if err := c.writeOld(old); err != nil {
		return fmt.Errorf("activate root: %w", err)
	}
	if err := os.Rename(c.path(nextFile), c.path(rootFile)); err != nil {
		return fmt.Errorf("activate root: %w", err)
	}
	if err := statefile.Sync(c.dir); err != nil {
		return fmt.Errorf("activate root: %w", err)
	}
	return c.publish(&authority{root: a.next, old: old, links: links}, now)
}

// RetireRoots takes former roots out of the bundle. It is ErrTooEarly until the last
// SVID of each has expired; with no former root it does nothing.
func (c *CA) RetireRoots() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, now := *c.current.Load(), c.config.Now()
	if a.issued() {
		return fmt.Errorf("retire root: %w", ErrIssued)
	}
	if at := a.retirement(c.config.SVIDTTL); now.Before(at) {
		return fmt.Errorf("retire root: %w: its last SVID lives until %s", ErrTooEarly, at.Format(time.RFC3339))
	}
	if err := c.writeOld(nil); err != nil {
		return fmt.Errorf("retire root: %w", err)
	}
	a.old = nil
	return c.publish(&a, now)
}
