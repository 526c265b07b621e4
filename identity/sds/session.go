package sds

import (
	"maps"
	"slices"
	"strconv"
)

// session is the bookkeeping of one stream, in either variant of the protocol. It does
// no I/O.
type session struct {
	names   map[string]bool   // what Envoy subscribes to
	sent    map[string]string // version last sent by name, accepted or refused: not sent again
	nonce   string            // of the response that is not answered yet, or ""
	counter int
}

func newSession() *session {
	return &session{names: map[string]bool{}, sent: map[string]string{}}
}

// answered takes an ACK or NACK. It reports whether it is for the response that is out.
func (s *session) answered(nonce string) bool {
	if nonce == "" || nonce != s.nonce {
		return false
	}
	s.nonce = ""
	return true
}

// subscribe adds names. One that was there is sent again, as the protocol demands.
func (s *session) subscribe(names []string) {
	for _, name := range names {
		s.names[name] = true
		delete(s.sent, name)
	}
}

func (s *session) unsubscribe(names []string) {
	for _, name := range names {
		delete(s.names, name)
		delete(s.sent, name)
	}
}

// replace makes names the whole subscription; what stays is not sent again.
func (s *session) replace(names []string) {
	for name := range s.names {
		if !slices.Contains(names, name) {
			s.unsubscribe([]string{name})
		}
	}
	for _, name := range names {
		s.names[name] = true
	}
}

// next returns what is to be sent now in order of name, and its nonce; nothing while a
// response is out.
func (s *session) next(newest map[string]*secret) ([]*secret, string) {
	if s.nonce != "" {
		return nil, ""
	}
	var due []*secret
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		if secret := newest[name]; secret != nil && s.sent[name] != secret.version {
			s.sent[name] = secret.version
			due = append(due, secret)
		}
	}
	if due == nil {
		return nil, ""
	}
	s.counter++
	s.nonce = strconv.Itoa(s.counter)
	return due, s.nonce
}
