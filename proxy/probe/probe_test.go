package probe

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// app is an application that tells how it was asked.
func app(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/code":
		var code int
		fmt.Sscan(r.URL.RawQuery, &code)
		w.WriteHeader(code)
	case "/near":
		http.Redirect(w, r, "/code?"+r.URL.RawQuery, http.StatusFound)
	case "/far":
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	case "/round":
		http.Redirect(w, r, "/round", http.StatusFound)
	case "/long":
		_, _ = w.Write(make([]byte, 10*maxBody))
	case "/cut":
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "not so much")
	case "/hang":
		<-r.Context().Done()
	case "/headers":
		for name, want := range map[string]string{"X-Key": "value", "User-Agent": "kube-probe/1.37", "Accept": "*/*"} {
			if got := r.Header.Get(name); got != want {
				http.Error(w, name, http.StatusTeapot)
			}
		}
		if r.Host != "app.example" || r.Method != http.MethodGet {
			http.Error(w, r.Host, http.StatusTeapot)
		}
	case "/own-headers":
		if _, ok := r.Header["Accept"]; ok || r.UserAgent() != "mine" {
			w.WriteHeader(http.StatusTeapot)
		}
	case "/proto2":
		if r.ProtoMajor != 2 {
			w.WriteHeader(http.StatusTeapot)
		}
	}
}

func port(t *testing.T, l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// servers are the applications' ports by name.
func servers(t *testing.T) map[string]int {
	t.Helper()
	plain := httptest.NewServer(http.HandlerFunc(app))
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(app))
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	h2c := httptest.NewUnstartedServer(http.HandlerFunc(app))
	h2c.Config.Protocols = new(http.Protocols)
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Start()
	t.Cleanup(h2c.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	return map[string]int{
		"PLAIN": port(t, plain.Listener), "SECURE": port(t, secure.Listener), "H2C": port(t, h2c.Listener), "CLOSED": port(t, closed),
		"GRPC": serveHealth(t, true), "BARE": serveHealth(t, false),
		"GSEC": serveHealth(t, true, grpc.Creds(credentials.NewServerTLSFromCert(&secure.TLS.Certificates[0]))),
	}
}

// serveHealth serves gRPC, with or without the health service.
func serveHealth(t *testing.T, with bool, options ...grpc.ServerOption) int {
	t.Helper()
	s := grpc.NewServer(options...)
	if with {
		h := health.NewServer()
		h.SetServingStatus("well", healthv1.HealthCheckResponse_SERVING)
		h.SetServingStatus("ill", healthv1.HealthCheckResponse_NOT_SERVING)
		healthv1.RegisterHealthServer(s, h)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return port(t, l)
}

// TestAnswers asks as the kubelet does, and compares with what the kubelet (1.37) makes of
// such an answer.
func TestAnswers(t *testing.T) {
	ports := servers(t)
	for _, tc := range []struct{ name, probe, want string }{
		{"200", `{"httpGet":{"path":"/","port":PLAIN}}`, ""},
		{"399", `{"httpGet":{"path":"/code?399","port":"PLAIN"}}`, ""},
		{"400", `{"httpGet":{"path":"/code?400","port":PLAIN}}`, "statuscode: 400"},
		{"503", `{"httpGet":{"path":"/code?503","port":PLAIN}}`, "statuscode: 503"},
		{"no path", `{"httpGet":{"port":PLAIN}}`, ""},
		{"path that is no URL", `{"httpGet":{"path":"/%zz","port":PLAIN}}`, ""},
		{"redirect within", `{"httpGet":{"path":"/near?204","port":PLAIN}}`, ""},
		{"redirect within, to an error", `{"httpGet":{"path":"/near?500","port":PLAIN}}`, "statuscode: 500"},
		{"redirect to elsewhere", `{"httpGet":{"path":"/far","port":PLAIN}}`, ""},
		{"redirects for ever", `{"httpGet":{"path":"/round","port":PLAIN}}`, "stopped after 10 redirects"},
		{"long answer", `{"httpGet":{"path":"/long","port":PLAIN}}`, ""},
		{"answer that is cut", `{"httpGet":{"path":"/cut","port":PLAIN}}`, "unexpected EOF"},
		{"no answer", `{"httpGet":{"path":"/hang","port":PLAIN},"timeoutSeconds":1}`, "deadline exceeded"},
		{"refused", `{"httpGet":{"path":"/","port":CLOSED}}`, "connection refused"},
		{"headers", `{"httpGet":{"path":"/headers","port":PLAIN,"httpHeaders":[{"name":"host","value":"app.example"},{"name":"x-key","value":"value"}]}}`, ""},
		{"own headers", `{"httpGet":{"path":"/own-headers","port":PLAIN,"httpHeaders":[{"name":"User-Agent","value":"mine"},{"name":"Accept","value":""}]}}`, ""},
		{"host", `{"httpGet":{"path":"/","port":PLAIN,"host":"localhost"}}`, ""},
		{"host elsewhere", `{"httpGet":{"path":"/","port":PLAIN,"host":"elsewhere.invalid"}}`, "no such host"},
		{"HTTPS", `{"httpGet":{"path":"/proto2","port":SECURE,"scheme":"HTTPS"}}`, ""},
		{"HTTPS to HTTP", `{"httpGet":{"path":"/","port":PLAIN,"scheme":"HTTPS"}}`, "server gave HTTP response to HTTPS client"},
		{"HTTP to HTTPS", `{"httpGet":{"path":"/","port":SECURE}}`, "statuscode: 400"},
		{"HTTP/2", `{"httpGet":{"path":"/proto2","port":H2C,"protocol":"HTTP2"}}`, ""},
		{"not HTTP/2", `{"httpGet":{"path":"/proto2","port":PLAIN,"protocol":"HTTP1"}}`, "statuscode: 418"},
		{"TCP", `{"tcpSocket":{"port":PLAIN}}`, ""},
		{"TCP refused", `{"tcpSocket":{"port":CLOSED,"host":"127.0.0.1"}}`, "connection refused"},
		{"gRPC", `{"grpc":{"port":GRPC,"service":null}}`, ""},
		{"gRPC service", `{"grpc":{"port":GRPC,"service":"well"}}`, ""},
		{"gRPC not serving", `{"grpc":{"port":GRPC,"service":"ill"}}`, `service unhealthy (responded with "NOT_SERVING")`},
		{"gRPC unknown service", `{"grpc":{"port":GRPC,"service":"other"}}`, "NotFound"},
		{"gRPC without health", `{"grpc":{"port":BARE}}`, "Unimplemented"},
		{"gRPC by TLS", `{"grpc":{"port":GSEC,"mode":"TLS"}}`, ""},
		{"gRPC to TLS", `{"grpc":{"port":GSEC}}`, "Unavailable"},
		{"gRPC refused", `{"grpc":{"port":CLOSED}}`, "connection refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := tc.probe
			for name, port := range ports {
				text = strings.ReplaceAll(text, name, fmt.Sprint(port))
			}
			probes, err := Parse(`{"/probe/app/liveness":` + text + `}`)
			if err != nil {
				t.Fatal(err)
			}
			h := NewHandler(probes, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, slog.New(slog.NewTextHandler(t.Output(), nil)))
			got := ask(h, "/probe/app/liveness")
			if tc.want == "" && (got.Code != http.StatusOK || got.Body.String() != "ok\n") ||
				tc.want != "" && (got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), tc.want)) {
				t.Errorf("answered %d %s, want %q", got.Code, got.Body, tc.want)
			}
			if got := ask(h, "/probe/app/readiness"); got.Code != http.StatusNotFound {
				t.Errorf("another path: %d", got.Code)
			}
		})
	}
}

func ask(h http.Handler, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("User-Agent", "kube-probe/1.37")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestApplicationIsAskedOnceAtATime: who floods the port does not flood the application.
func TestApplicationIsAskedOnceAtATime(t *testing.T) {
	var now, most atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		_, _ = w.Write(make([]byte, maxBody))
	}))
	defer s.Close()
	probes := map[string]Probe{"/probe/a/startup": {HTTPGet: &HTTPGet{Port: Port(port(t, s.Listener)), Host: "127.0.0.1"}, TimeoutSeconds: 60}}
	h := NewHandler(probes, nil, slog.New(slog.DiscardHandler))
	answers := make(chan int)
	for range 200 {
		go func() { answers <- ask(h, "/probe/a/startup").Code }()
	}
	for range 200 {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("answered %d", code)
		}
	}
	// An answer is out a moment before the application's handler has returned.
	if n := most.Load(); n > 2 {
		t.Errorf("the application was asked %d times at once", n)
	}
}

// TestUserAgent: the application hears of the kubelet that asks, and of nobody else.
func TestUserAgent(t *testing.T) {
	for agent, want := range map[string]string{
		"kube-probe/1.37": "kube-probe/1.37", "kube-lifecycle/1.37": "kube-lifecycle/1.37",
		"curl/8": "kube-probe/heddle", "kube-" + strings.Repeat("x", 100): "kube-probe/heddle", "": "kube-probe/heddle",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("User-Agent", agent)
		if got := userAgent(r); got != want {
			t.Errorf("%q: %q, want %q", agent, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                     "cannot unmarshal",
		`{"/healthz": {"tcpSocket":{"port":1}}}`: `path "/healthz" does not begin with /probe/`,
		`{"/probe/a/liveness": {}}`:              "0 of httpGet, tcpSocket and grpc",
		`{"/probe/a/liveness": {"exec":{"command":["true"]}}}`:                      "0 of httpGet, tcpSocket and grpc",
		`{"/probe/a/liveness": {"tcpSocket":{"port":1},"grpc":{"port":2}}}`:         "2 of httpGet, tcpSocket and grpc",
		`{"/probe/a/liveness": {"tcpSocket":{"port":"http"}}}`:                      `port "http" is not a number`,
		`{"/probe/a/liveness": {"tcpSocket":{"port":65536}}}`:                       "port 65536 is not a number",
		`{"/probe/a/liveness": {"tcpSocket":{}}}`:                                   "no port given",
		`{"/probe/a/liveness": {"httpGet":{"port":1,"scheme":"GOPHER"}}}`:           `httpGet.scheme "GOPHER"`,
		`{"/probe/a/liveness": {"httpGet":{"port":1},"timeoutSeconds":-1}}`:         "timeoutSeconds is -1",
		`{"/probe/a/liveness": {"httpGet":{"port":1},"timeoutSeconds":2147483648}}`: "cannot unmarshal",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if p, err := Parse(""); len(p) > 0 || err != nil {
		t.Errorf("none: %v, %v", p, err)
	}
}

// FuzzParse: what is taken can be asked.
func FuzzParse(f *testing.F) {
	f.Add(`{"/probe/a/liveness": {"httpGet":{"path":"/x?y","port":"80","httpHeaders":[{"name":"a","value":"b"}]},"timeoutSeconds":3}}`)
	f.Add(`{"/probe/a/startup": {"grpc":{"port":1,"service":null}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		probes, err := Parse(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(probes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(string(again)); err != nil {
			t.Errorf("%s became %s: %v", text, again, err)
		}
		for _, p := range probes {
			if p.timeout() <= 0 {
				t.Errorf("timeout %s", p.timeout())
			}
			if p.HTTPGet != nil {
				_, _ = newAsker(nil).request(t.Context(), p.HTTPGet, "x")
			}
		}
	})
}
