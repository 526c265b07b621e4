package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// summary is what a load was answered.
type summary struct {
	OK       int            `json:"ok"` // answered 2xx
	Failed   int            `json:"failed"`
	Failures map[string]int `json:"failures"` // codes and errors, by how often
	Times    []string       `json:"times"`    // when the first of them were sent
	Versions map[string]int `json:"versions"` // of the server, by how often
	By       map[string]int `json:"by"`       // workloads that answered, by how often
	Worst    float64        `json:"worst_ms"`

	mu sync.Mutex // held while anything is counted
}

// maxTimes bounds the times in a summary.
const maxTimes = 20

// load sends requests at a constant rate, however long answers take, until its standard
// input ends or enough were sent. Unless told otherwise it sends POST, which Go's client
// never sends twice by itself: nothing that fails stays unseen.
func load(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	url := fs.String("url", "", "what to ask for")
	rate := fs.Int("rate", 100, "requests a second")
	count := fs.Int("count", 1<<30, "how many at most")
	method := fs.String("method", http.MethodPost, "HTTP method")
	fresh := fs.Bool("fresh", false, "a connection for every request")
	var e entrance
	e.flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	transport, err := e.transport(&http.Transport{MaxIdleConnsPerHost: 100, DisableKeepAlives: *fresh})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	client := &http.Client{Timeout: patience, Transport: transport}
	s := &summary{Failures: map[string]int{}, Versions: map[string]int{}, By: map[string]int{}}
	var group sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(*rate))
	defer tick.Stop()
	for range *count {
		select {
		case <-tick.C:
			// The end of the load is no reason for a request to fail.
			group.Go(func() { s.one(context.WithoutCancel(ctx), client, *method, *url) })
			continue
		case <-ctx.Done():
		}
		break
	}
	group.Wait()
	return tell(s)
}

// one sends one request and counts its answer.
func (s *summary) one(ctx context.Context, client *http.Client, method, url string) {
	began := time.Now()
	a := ask(ctx, client, method, url)
	took := time.Since(began)
	var by request
	if a.Code == http.StatusOK && json.Unmarshal([]byte(a.Body), &by) != nil {
		a.Error = "no JSON"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Worst = max(s.Worst, float64(took.Microseconds())/1000)
	if a.Code/100 == 2 && a.Error == "" {
		s.OK++
		s.Versions[by.Version]++
		s.By[by.Workload]++
		return
	}
	what := a.Error
	if what == "" {
		what = strconv.Itoa(a.Code) + " " + a.Body
	}
	if s.Failed++; s.Failed <= maxTimes {
		s.Times = append(s.Times, began.UTC().Format("15:04:05.000"))
	}
	s.Failures[what]++
}

var errUsage = errors.New("wrong number of arguments")
