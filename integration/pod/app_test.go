package pod

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// app is the application of a pod: HTTP at the pod's address alone, HTTPS on all of IPv4,
// gRPC on all addresses, and bytes.
type app struct {
	t      *testing.T
	pod    *pod
	health *health.Server
	asked  chan struct{} // gets an element when /slow is asked
	answer chan struct{} // holds an answer to /slow for each element
}

func startApp(t *testing.T, p *pod) *app {
	t.Helper()
	a := &app{t: t, pod: p, health: health.NewServer(), asked: make(chan struct{}, 1), answer: make(chan struct{}, 1)}
	a.http(netip.AddrPortFrom(p.ips[0], 8080).String(), false)
	a.http("0.0.0.0:8443", true)
	a.http(":9090", false)
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, a.health)
	l := a.listen(":9000")
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return a
}

func (a *app) listen(address string) net.Listener {
	a.t.Helper()
	l, err := a.pod.ns.Listen(a.t.Context(), "tcp", address)
	if err != nil {
		a.t.Fatal(err)
	}
	return l
}

// http serves, at an address inside the pod.
func (a *app) http(address string, secure bool) {
	a.t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	s.Listener.Close()
	s.Listener = a.listen(address)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	a.t.Cleanup(s.Close)
}

// serve tells who calls, as the proxy says.
func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/slow":
		a.asked <- struct{}{}
		<-a.answer
	case "/ill":
		w.WriteHeader(http.StatusInternalServerError)
	}
	fmt.Fprintf(w, "%s %s called by %q", a.pod.name, r.URL.Path, r.Header.Get("X-Forwarded-Client-Cert"))
}
