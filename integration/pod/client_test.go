package pod

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// kubelet gets a path of the port for the kubelet, from the node.
func (p *pod) kubelet(path string) (code int, body string) {
	return get(&net.Dialer{}, "http://"+netip.AddrPortFrom(p.ips[0], 15021).String()+path)
}

// startupProbe asks once, as the kubelet does before it starts the application: the answer
// comes when the sidecar is ready.
func (p *pod) startupProbe() (code int, body string) {
	return getWithin(time.Minute, &net.Dialer{}, "http://"+netip.AddrPortFrom(p.ips[0], 15021).String()+"/ready?wait=50s")
}

// dialer makes connections: this process as the node, or a pod as its application.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// DialContext connects as the pod's application does.
func (p *pod) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return p.ns.Dial(ctx, network, address)
}

// get asks for a URL by a connection of its own; the code is 0 for an error, which is told.
func get(from dialer, url string) (code int, body string) {
	return getWithin(10*time.Second, from, url)
}

func getWithin(patience time.Duration, from dialer, url string) (code int, body string) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// resolve asks the pod's resolver for the IPv4 addresses of a name, as the application does.
func (p *pod) resolve(name string) string {
	conn, err := p.ns.Dial(p.t.Context(), "udp", netip.AddrPortFrom(p.resolver, 53).String())
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	client := &dns.Client{Timeout: 5 * time.Second}
	m, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), &dns.Conn{Conn: conn})
	if err != nil {
		return err.Error()
	}
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		out = append(out, rr.(*dns.A).A.String())
	}
	return strings.Join(out, " ")
}

// memory is what a process holds: its own, and pages of its program, which all pods of a
// node share.
func memory(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	var out []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "RssAnon:") || strings.HasPrefix(line, "RssFile:") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func logTo(t *testing.T, who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("who", who)
}
