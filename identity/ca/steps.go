package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"time"
)

// stepRetry is the pause after a step that went wrong, as on a full disk.
const stepRetry = time.Minute

// Due is when the next step of a rotation may be taken; zero where none is under way, and
// for an authority that is issued, which sees to itself.
func (c *CA) Due() time.Time {
	a := c.current.Load()
	switch {
	case a.issued():
		return time.Time{}
	case a.next != nil:
		return a.activation(c.config.SVIDTTL)
	}
	return a.retirement(c.config.SVIDTTL)
}

// Advance takes the next step of a rotation. It is ErrTooEarly before Due.
func (c *CA) Advance() error {
	if a := c.current.Load(); a.next != nil {
		return c.ActivateRoot()
	}
	return c.RetireRoots()
}

// Rotate takes the steps of rotations when they are due, until ctx is done. Somebody calls
// PrepareRoot.
func (c *CA) Rotate(ctx context.Context) error {
	for {
		changed := c.Changed()
		var timer <-chan time.Time
		if due := c.Due(); !due.IsZero() {
			timer = time.After(due.Sub(c.config.Now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			continue
		case <-timer:
		}
		err := c.Advance()
		if err == nil {
			c.config.Log.Info("the rotation of the root goes on", "trust_domain", c.config.TrustDomain, "next", c.Due())
			continue
		}
		pause := stepRetry
		if errors.Is(err, ErrTooEarly) { // the clock was set meanwhile
			pause = time.Second
		} else {
			c.config.Log.Error("the rotation of the root does not go on", "trust_domain", c.config.TrustDomain, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Role is what a root is for.
type Role int

// Roles of roots, in the order of a root's life.
const (
	Prepared Role = iota // trusted, and will sign
	Signing              // signs
	Former               // trusted until its last SVID has expired
)

// RootInfo is what can be said about a root.
type RootInfo struct {
	Cert *x509.Certificate
	Role Role
	Due  time.Time // of its next role, or its end; zero: open
}

// Roots are all that are trusted, the one that signs first.
func (c *CA) Roots() []RootInfo {
	a := c.current.Load()
	var out []RootInfo
	for _, cert := range a.roots() {
		info := RootInfo{Cert: cert, Role: Signing}
		switch {
		case a.next != nil && cert.Equal(a.next.cert):
			info.Role, info.Due = Prepared, a.activation(c.config.SVIDTTL)
		case !cert.Equal(a.root.cert):
			for _, o := range a.old {
				if cert.Equal(o.cert) {
					info.Role, info.Due = Former, a.retirement(c.config.SVIDTTL)
				}
			}
		}
		out = append(out, info)
	}
	return out
}
