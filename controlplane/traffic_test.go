package controlplane

import (
	"bufio"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
)

// traffic is what one request and its answer do not show.
func traffic(t *testing.T, w *wiring, programs map[string]*program) {
	t.Run("weights", func(t *testing.T) {
		shares(t, w, "weights", "/", map[string]float64{"200 v1": 0.9, "200 v2": 0.1})
		shares(t, w, "weights", "/zero", map[string]float64{"200 v2": 1})
		shares(t, w, "weights", "/broken", map[string]float64{"200 v1": 0.75, "500 ": 0.25})
		shares(t, w, "weights", "/apart", map[string]float64{"200 v1 /old": 0.6, "200 v2 /new": 0.3, "200 v3 /apart": 0.1})
	})
	t.Run("mirror", func(t *testing.T) {
		client := w.client(t, "mirror")
		if _, _, s := exchange(t, client, "GET", "/cart?a=1", [2]string{"X-Key", "copied"}); s.Program != "v1" {
			t.Errorf("answered by %q", s.Program)
		}
		xdstest.Eventually(t, "the copy", func() bool { return len(programs["v2"].requests("copied")) == 1 })
		if got := programs["v2"].requests("copied")[0]; got.Path != "/cart?a=1" || got.Host != "service" {
			t.Errorf("the copy: %s of %s", got.Path, got.Host)
		}
		if got := programs["v3"].requests("copied"); len(got) > 0 {
			t.Errorf("0 percent and a missing backend: %d copies", len(got))
		}
	})
	t.Run("retries", func(t *testing.T) { tries(t, w, programs) })
	t.Run("websocket", func(t *testing.T) {
		first, rest := speak(t, w.service("weights.default:80"),
			"GET /zero HTTP/1.1\r\nHost: service\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "hello\n")
		if !strings.Contains(first, " 101 ") || rest != "hello\n" {
			t.Errorf("upgrade: %q, then %q", first, rest)
		}
	})
	t.Run("http1.0", func(t *testing.T) {
		first, _ := speak(t, w.service("weights.default:80"), "GET /zero HTTP/1.0\r\nHost: service\r\n\r\n", "")
		if !strings.Contains(first, " 200 ") {
			t.Errorf("HTTP/1.0: %q", first)
		}
	})
	t.Run("grpc", func(t *testing.T) { methods(t, w) })
}

// shares makes 2,000 requests and compares who answered with what was promised, within
// four standard deviations.
func shares(t *testing.T, w *wiring, service, path string, want map[string]float64) {
	t.Helper()
	const n = 2000
	client := w.client(t, service)
	got := map[string]int{}
	var mu sync.Mutex // guards got
	var left atomic.Int64
	left.Store(n)
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for left.Add(-1) >= 0 {
				status, _, s := exchange(t, client, "GET", path)
				mu.Lock()
				for outcome := range want { // with the path that the program saw, or without
					if outcome == fmt.Sprint(status, " ", s.Program) || outcome == fmt.Sprint(status, " ", s.Program, " ", s.Path) {
						got[outcome]++
					}
				}
				mu.Unlock()
			}
		})
	}
	done.Wait()
	sum := 0
	for outcome, share := range want {
		sum += got[outcome]
		if off := math.Abs(float64(got[outcome]) - n*share); off > 4*math.Sqrt(n*share*(1-share)) {
			t.Errorf("%s: %q for %d of %d, want a share of %v", path, outcome, got[outcome], n, share)
		}
	}
	if sum != n {
		t.Errorf("%s: %v are %d of %d outcomes", path, got, sum, n)
	}
}

// tries is about timeouts and retries: the program's answers, one for each try, what the
// client gets, and after how many tries.
func tries(t *testing.T, w *wiring, programs map[string]*program) {
	client := w.client(t, "retries")
	for i, c := range []struct {
		name, path, answers string
		status, tries       int
	}{
		{"no retry by default", "/plain", "503,200", 503, 1},
		{"no timeout by default", "/plain", "1100ms", 200, 1},
		{"request timeout", "/request", "30s", 504, 1},
		{"backend timeout without retry", "/backend", "30s,200", 504, 1},
		{"backend timeout with retry", "/backend-retry", "30s,30s,200", 200, 3},
		{"backend timeout, tries used up", "/backend-retry", "30s", 504, 3},
		{"request timeout bounds all tries", "/both", "30s", 504, 2},
		{"a listed code", "/codes", "503,500,200", 200, 3},
		{"a listed code, tries used up", "/codes", "503,500,503,200", 503, 3},
		{"another code", "/codes", "502,200", 502, 1},
		{"no attempts", "/never", "503,200", 503, 1},
		{"a retry of the default number", "/once", "503,200", 200, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			key := fmt.Sprint("try-", i)
			status, _, _ := exchange(t, client, http.MethodGet, c.path, [2]string{"X-Key", key}, [2]string{"X-Answer", c.answers})
			if n := len(programs["v1"].requests(key)); status != c.status || n != c.tries {
				t.Errorf("%d after %d tries, want %d after %d", status, n, c.status, c.tries)
			}
		})
	}
}

// speak writes raw bytes to a socket and returns the first line of the answer; after an
// upgrade it says more and returns what comes back.
func speak(t *testing.T, socket, request, more string) (first, rest string) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatalf("after %q: %v", first, err)
		}
		if first == "" {
			first = line
		}
	}
	if more == "" {
		return first, ""
	}
	if _, err := conn.Write([]byte(more)); err != nil {
		t.Fatal(err)
	}
	if rest, err = r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return first, rest
}

// methods calls gRPC methods and looks who answers.
func methods(t *testing.T, w *wiring) {
	conn, err := grpc.NewClient("unix:"+w.service("methods.default:80"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("methods"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []struct{ method, header, want string }{
		{"/shop.Cart/Add", "", "g2"},
		{"/shop.Cart/Addition", "", "g1"},
		{"/shop.Cart/Get", "", "g1"},
		{"/shop.Cart/Get", "canary", "g2"},
		{"/shop.Carts/Add", "", "Unimplemented"},
		{"/stock.Stock/Get", "", "g1"},
		{"/stock.Stock/List", "", "g2"},
	} {
		ctx := t.Context()
		if c.header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-user", c.header)
		}
		var header metadata.MD
		got := ""
		if err := conn.Invoke(ctx, c.method, &emptypb.Empty{}, &emptypb.Empty{}, grpc.Header(&header)); err != nil {
			got = err.Error()
		} else {
			got = strings.Join(header.Get("program"), ",")
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q, want %s", c.method, c.header, got, c.want)
		}
	}
}
