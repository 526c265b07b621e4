package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// request is what the server tells of a request in its answer.
type request struct {
	Workload string              `json:"workload"`
	Version  string              `json:"version"`
	Method   string              `json:"method"`
	Path     string              `json:"path"`
	Host     string              `json:"host"`
	Remote   string              `json:"remote"`
	Headers  map[string][]string `json:"headers"`
}

// serve answers HTTP on one port and greets on another, where the client waits to be
// spoken to first. POST /unready and /ready on the HTTP port change what /healthz says; after
// POST /break everything else is answered with 503, until POST /mend.
func serve(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	version := fs.String("version", "", "what to say of ourselves")
	address := fs.String("http", "", "ADDRESS:PORT")
	banner := fs.String("banner", "", "ADDRESS:PORT of the server that speaks first")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ended := make(chan error, 2)
	if *banner != "" {
		l, err := net.Listen("tcp", *banner)
		if err != nil {
			return err
		}
		defer l.Close()
		go func() { ended <- greet(l) }()
	}
	if *address != "" {
		l, err := net.Listen("tcp", *address)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler(*version), ReadHeaderTimeout: 10 * time.Second}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = server.Shutdown(ctx)
		}()
		go func() { ended <- server.Serve(l) }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

func handler(version string) http.Handler {
	var unready, broken atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /unready", func(http.ResponseWriter, *http.Request) { unready.Store(true) })
	mux.HandleFunc("POST /ready", func(http.ResponseWriter, *http.Request) { unready.Store(false) })
	mux.HandleFunc("POST /break", func(http.ResponseWriter, *http.Request) { broken.Store(true) })
	mux.HandleFunc("POST /mend", func(http.ResponseWriter, *http.Request) { broken.Store(false) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Header.Get("Upgrade") != "" {
			upgrade(w, r.Header.Get("Upgrade"))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(request{
			Workload: os.Getenv("HEDDLE_WORKLOAD"), Version: version,
			Method: r.Method, Path: r.URL.Path, Host: r.Host, Remote: r.RemoteAddr, Headers: r.Header,
		})
	})
	return mux
}

// upgrade switches protocols, as a WebSocket begins, and says one line of the client's again.
func upgrade(w http.ResponseWriter, protocol string) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if rw.Flush() != nil {
		return
	}
	line, _ := rw.ReadString('\n')
	fmt.Fprintf(rw, "%s of %s", strings.TrimSpace(line), os.Getenv("HEDDLE_WORKLOAD"))
	_ = rw.Flush()
}

// greet speaks first, and then says again what it is told, line by line.
func greet(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			fmt.Fprintf(conn, "220 %s\n", os.Getenv("HEDDLE_WORKLOAD"))
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				fmt.Fprintln(conn, lines.Text())
			}
		}()
	}
}
