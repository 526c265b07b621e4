//go:build k8s

package kubernetes

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// gate is the network to the API server, which can be cut.
type gate struct {
	mu    sync.Mutex // guards what follows
	shut  bool
	conns map[net.Conn]bool
}

func newGate() *gate { return &gate{conns: map[net.Conn]bool{}} }

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil, errors.Join(&net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}, c.Close())
	}
	g.conns[c] = true
	return c, nil
}

// cut breaks all connections and lets none through; mend lets them through again.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.conns {
		c.Close()
	}
	clear(g.conns)
}

func (g *gate) mend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// requests counts what a source asks the API server for.
type requests struct {
	mu            sync.Mutex // guards what follows
	lists, resets int        // resets are watches that begin with all that there is
	paths         []string   // of lists and resets
}

func (r *requests) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(q *http.Request) (*http.Response, error) {
		r.mu.Lock()
		query := q.URL.Query()
		switch {
		case query.Get("sendInitialEvents") == "true":
			r.resets++
			r.paths = append(r.paths, q.URL.String())
		case query.Get("watch") == "true":
			// which goes on from where another one ended
		default:
			r.lists++
			r.paths = append(r.paths, q.URL.String())
		}
		r.mu.Unlock()
		return next.RoundTrip(q)
	})
}

func (r *requests) take() (lists, resets int, paths []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lists, resets, paths = r.lists, r.resets, r.paths
	r.lists, r.resets, r.paths = 0, 0, nil
	return lists, resets, paths
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// lines is a log.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the log says something; false is that it did not.
func (l *lines) await(ctx context.Context, text string) bool {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !strings.Contains(l.String(), text) {
		select {
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
