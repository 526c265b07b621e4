package controlplane

import (
	"slices"
	"sync"
)

// Scopes remember which services each account uses, so that a proxy holds those and no
// others, and nobody writes that down: a proxy asks for what its application calls, and what
// one has asked for all of its account have, from their start on. It is safe for concurrent
// use.
type Scopes struct {
	mu   sync.Mutex // guards used
	used map[string]map[string]bool
}

// NewScopes remember nothing yet.
func NewScopes() *Scopes { return &Scopes{used: map[string]map[string]bool{}} }

// Groups are the services that an account is known to use, by name.
func (s *Scopes) Groups(account string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for group := range s.used[account] {
		out = append(out, group)
	}
	slices.Sort(out)
	return out
}

// Use notes that an account uses services, and gives those of them that are news.
func (s *Scopes) Use(account string, groups ...string) (fresh []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range groups {
		if s.used[account][group] {
			continue
		}
		if s.used[account] == nil {
			s.used[account] = map[string]bool{}
		}
		s.used[account][group] = true
		fresh = append(fresh, group)
	}
	return fresh
}
