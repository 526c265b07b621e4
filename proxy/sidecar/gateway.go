package sidecar

import "context"

// gateway reports whether the sidecar has no application, but is a gateway's proxy.
func (c Config) gateway() bool { return c.Pod != nil && c.Pod.Gateway }

// drainGateway asks clients to connect to another proxy; they have all of the time for it.
func (s *Sidecar) drainGateway(ctx context.Context) error {
	s.ending.Store(true)
	return s.admin.DrainListeners(ctx)
}
