// Package broadcast wakes everybody who waits for the next change of some state.
package broadcast

import "sync"

// Signal tells any number of waiters that something changed. It carries no data: the
// waiter reads the newest state itself, so a slow one skips what it missed. The zero
// value is ready.
type Signal struct {
	mu sync.Mutex // guards ch
	ch chan struct{}
}

// C returns a channel that is closed by the next Change. Take it before reading the
// state, so that a change in between is not lost.
func (s *Signal) C() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Change makes a change and wakes all who wait. A C that comes after somebody has seen
// the change waits for the next one, so nobody is woken for what he has read already.
func (s *Signal) Change(apply func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	apply()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
