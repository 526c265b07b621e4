package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAwaitReady waits for a server that is not there yet, then for its yes, and says what it
// was told where that does not come.
func TestAwaitReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	done := make(chan error, 1)
	go func() { done <- awaitReady(t.Context(), "http://"+address) }()
	time.Sleep(100 * time.Millisecond) // it is refused meanwhile
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "no names yet", http.StatusServiceUnavailable)
		}
	})}
	go server.Serve(l)
	defer server.Close()
	if err := <-done; err != nil || asked.Load() != 3 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	asked.Store(-1 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := awaitReady(ctx, "http://"+address); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("with no end of it: %v", err)
	}
}
