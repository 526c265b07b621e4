package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestRoutes sends requests through a real Envoy and holds the answers to what Gateway
// API says of routes. Each file of testdata/routes is a service and its routes; its
// requests.txt has a line for each request and what becomes of it:
//
//	METHOD PATH [HEADER: VALUE; ...] -> PROGRAM PATH {HEADER: VALUE; ...} <HEADER: VALUE; ...>
//	METHOD PATH -> STATUS LOCATION
//
// where {} holds headers that the program saw and <> those of the answer; the value - is
// for one that is not there.
func TestRoutes(t *testing.T) {
	files, err := filepath.Glob("testdata/routes/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("files: %d, %v", len(files), err)
	}
	mesh, err := os.ReadFile("testdata/routes/programs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	requests := map[string]string{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			switch f.Name {
			case "rules.yaml":
				mesh = append(mesh, routed(name, 80, f.Data)...)
			case "rules-8000.yaml":
				mesh = append(mesh, routed(name, 8000, f.Data)...)
			case "mesh.yaml":
				mesh = append(append(mesh, "---\n"...), f.Data...)
			case "requests.txt":
				requests[name] = string(f.Data)
			}
		}
	}
	w := wire(t, tell(t, "testdata/routes", mesh), nil)
	programs := map[string]*program{}
	for i, name := range []string{"v1", "v2", "v3"} {
		programs[name] = startProgram(t, name, w.program(uint32(8081+i)))
	}
	startGRPC(t, "g1", w.program(8091))
	startGRPC(t, "g2", w.program(8092))
	w.run()

	for name, lines := range requests {
		t.Run(name, func(t *testing.T) {
			client := w.client(t, name)
			for line := range strings.Lines(lines) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
					ask(t, client, line)
				}
			}
		})
	}
	t.Run("traffic", func(t *testing.T) { traffic(t, w, programs) })
}

// routed is a service with one HTTPRoute.
func routed(name string, port int, rules []byte) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {ports: [{port: %[2]d, appProtocol: http}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %[1]s}
spec:
  parentRefs: [{group: "", kind: Service, name: %[1]s}]
  rules:
%[3]s`, name, port, rules)
}

// client calls a service of the default namespace on its only port.
func (w *wiring) client(t *testing.T, service string) *http.Client {
	t.Helper()
	sockets, err := filepath.Glob(w.service(service + ".default:*"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("listeners of %s: %v, %v", service, sockets, err)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", sockets[0])
		},
		MaxIdleConnsPerHost: 8,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

var requestLine = regexp.MustCompile(`^(\S+) (\S+)(?: \[(.*?)\])? -> ([^{<]*?)(?: ?\{(.*?)\})?(?: ?<(.*?)>)?$`)

// ask makes the request of a line and compares what becomes of it.
func ask(t *testing.T, client *http.Client, line string) {
	t.Helper()
	m := requestLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("not a request: %s", line)
	}
	status, header, s := exchange(t, client, m[1], m[2], pairs(m[3])...)
	got := s.Program + " " + s.Path
	if status != http.StatusOK {
		got = strings.TrimSpace(fmt.Sprint(status, " ", header.Get("Location")))
	}
	if m[5] != "" {
		if s.Header != nil {
			s.Header.Set("Host", s.Host)
		}
		got += " {" + said(s.Header, m[5]) + "}"
	}
	if m[6] != "" {
		got += " <" + said(header, m[6]) + ">"
	}
	if _, want, _ := strings.Cut(line, " -> "); got != want {
		t.Errorf("%s\n\tgot %s", line, got)
	}
}

func pairs(list string) [][2]string {
	var out [][2]string
	for _, pair := range strings.Split(list, "; ") {
		if name, value, ok := strings.Cut(pair, ": "); ok {
			out = append(out, [2]string{name, value})
		}
	}
	return out
}

// said gives the values of the headers that a list of wanted ones names.
func said(h http.Header, wanted string) string {
	var out []string
	for _, pair := range pairs(wanted) {
		value := "-"
		if values := h.Values(pair[0]); len(values) > 0 {
			value = strings.Join(values, ",")
		}
		out = append(out, pair[0]+": "+value)
	}
	return strings.Join(out, "; ")
}

// exchange makes one request; seen is empty where no program answered.
func exchange(t *testing.T, client *http.Client, method, path string, headers ...[2]string) (int, http.Header, seen) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://service"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		if h[0] == "Host" {
			req.Host = h[1]
		} else {
			req.Header.Add(h[0], h[1])
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var s seen
	if resp.Header.Get("X-Program") != "" && method != http.MethodHead {
		if err := json.Unmarshal(body, &s); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode, resp.Header, s
}
