package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestResolves waits for a name that never comes (RFC 6761), and not for an address.
func TestResolves(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := resolves(ctx, "api.invalid:80"); err == nil || !strings.Contains(err.Error(), "api.invalid") {
		t.Errorf("a name that is not there: %v", err)
	}
	if err := resolves(t.Context(), "127.0.0.1:80"); err != nil {
		t.Error(err)
	}
	if err := resolves(t.Context(), "api"); err == nil {
		t.Error("an address without a port was taken")
	}
}

func TestRenderRefuses(t *testing.T) {
	for _, s := range []site{
		{Dir: "/x", API: ""},
		{Dir: "/x", API: "api:80; include /etc/passwd"},
		{Dir: "/x", API: "api:80 {"},
		{Dir: "/x\"y", API: "api:80"},
		{Dir: "/x", API: "api:80", Listen: []string{"127.0.0.1", "any"}},
		{Dir: "/x", API: "api:80", Listen: []string{""}},
	} {
		if err := s.render(&strings.Builder{}); err == nil {
			t.Errorf("%+v was taken", s)
		}
	}
}
