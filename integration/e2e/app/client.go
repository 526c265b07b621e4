package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"
)

const patience = 10 * time.Second

// answer is what a client tells.
type answer struct {
	Code  int    `json:"code,omitempty"`
	Body  string `json:"body,omitempty"`
	Error string `json:"error,omitempty"`
}

// get asks for URLs, one after the other, on connections of their own: get [METHOD] URL...
func get(ctx context.Context, args []string) error {
	method := http.MethodGet
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		method, args = args[0], args[1:]
	}
	client := &http.Client{
		Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, url := range args {
		if err := tell(ask(ctx, client, method, url)); err != nil {
			return err
		}
	}
	return nil
}

func ask(ctx context.Context, client *http.Client, method, url string) answer {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return answer{Error: err.Error()}
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{Error: reason(err)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return answer{Code: resp.StatusCode, Error: reason(err)}
	}
	return answer{Code: resp.StatusCode, Body: string(body)}
}

// first asks for URLs, one after the other, each on a connection of its own, and tells how
// long that took: first URL...
func first(ctx context.Context, urls []string) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	out := struct {
		OK, Failed int
		Failures   []string
		P50        float64 `json:"p50_ms"`
		P99        float64 `json:"p99_ms"`
		Worst      float64 `json:"worst_ms"`
	}{}
	var times []time.Duration
	for _, url := range urls {
		began := time.Now()
		a := ask(ctx, client, http.MethodGet, url)
		times = append(times, time.Since(began))
		if a.Code == http.StatusOK {
			out.OK++
		} else if out.Failed++; out.Failed <= 10 {
			out.Failures = append(out.Failures, fmt.Sprintf("%s: %d %s %.100s", url, a.Code, a.Error, a.Body))
		}
	}
	if len(times) == 0 {
		return errors.New("first wants a URL")
	}
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[int(share*float64(len(times)-1))].Microseconds()) / 1000
	}
	out.P50, out.P99, out.Worst = at(.5), at(.99), at(1)
	return tell(out)
}

// reason says why a connection failed without the ports, so that equal failures count as
// one.
func reason(err error) string {
	for text, target := range map[string]error{
		"refused": syscall.ECONNREFUSED, "reset": syscall.ECONNRESET, "broken pipe": syscall.EPIPE,
		"end": io.EOF, "cut": io.ErrUnexpectedEOF, "timeout": context.DeadlineExceeded,
	} {
		if errors.Is(err, target) {
			return text
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timeout"
	}
	return err.Error()
}

// resolve tells the addresses of a name: resolve ip4|ip6 NAME.
func resolve(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("want resolve ip4|ip6 NAME")
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, args[0], args[1])
	if err != nil {
		return tell(answer{Error: err.Error()})
	}
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.Unmap().String())
	}
	slices.Sort(texts)
	return tell(answer{Body: strings.Join(texts, " ")})
}

// tcp tells the first line of a server that speaks first, and what it says to a line of
// ours: tcp ADDRESS:PORT.
func tcp(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("want tcp ADDRESS:PORT")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return tell(answer{Error: reason(err)})
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	greeting, err := in.ReadString('\n')
	if err != nil {
		return tell(answer{Body: greeting, Error: reason(err)})
	}
	fmt.Fprintln(conn, "thanks")
	echo, err := in.ReadString('\n')
	if err != nil {
		return tell(answer{Body: greeting, Error: reason(err)})
	}
	return tell(answer{Body: greeting + echo})
}
