package controlplane

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// seen is what a program tells of a request that it got.
type seen struct {
	Program, Method, Path, Host string
	Header                      http.Header
	// Attempt counts the requests with the same X-Key, from 1.
	Attempt int
}

// program is an application behind a proxy. It answers with what it saw; X-Answer lists
// the status or the delay of the first, second... request of one X-Key, the last one
// for all after it; Upgrade makes it repeat bytes.
type program struct {
	name string

	mu       sync.Mutex // guards what follows
	attempts map[string]int
	log      []seen
}

// startProgram serves on a socket until the test ends.
func startProgram(t *testing.T, name, socket string) *program {
	t.Helper()
	p := &program{name: name, attempts: map[string]int{}}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p}
	var done sync.WaitGroup
	done.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		server.Close()
		done.Wait()
	})
	return p
}

func (p *program) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := seen{Program: p.name, Method: r.Method, Path: r.RequestURI, Host: r.Host, Header: r.Header}
	p.mu.Lock()
	key := r.Header.Get("X-Key")
	p.attempts[key]++
	s.Attempt = p.attempts[key]
	p.log = append(p.log, s)
	p.mu.Unlock()

	if r.Header.Get("Upgrade") != "" {
		repeat(w)
		return
	}
	status := http.StatusOK
	if answers := strings.Split(r.Header.Get("X-Answer"), ","); answers[0] != "" {
		answer := answers[min(s.Attempt, len(answers))-1]
		if delay, err := time.ParseDuration(answer); err == nil {
			select {
			case <-time.After(delay):
			case <-r.Context().Done(): // the proxy has given up
			}
		} else if err := json.Unmarshal([]byte(answer), &status); err != nil {
			status = http.StatusTeapot
		}
	}
	w.Header().Set("Server", "program")
	w.Header().Set("X-Program", p.name)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(s)
}

// repeat answers an upgrade and sends back what comes.
func repeat(w http.ResponseWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	rw.Flush()
	line, err := bufio.NewReader(rw).ReadString('\n')
	if err != nil {
		return
	}
	io.WriteString(conn, line)
}

// requests are those that a program got with a key.
func (p *program) requests(key string) []seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []seen
	for _, s := range p.log {
		if s.Header.Get("X-Key") == key {
			out = append(out, s)
		}
	}
	return out
}

// startGRPC serves every gRPC method on a socket until the test ends, and says its name
// in the header "program".
func startGRPC(t *testing.T, name, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.SetHeader(metadata.Pairs("program", name)); err != nil {
			return err
		}
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		return stream.SendMsg(&emptypb.Empty{})
	}))
	var done sync.WaitGroup
	done.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		done.Wait()
	})
}
