// Package bench measures Heddle as a whole: requests through real sidecars against the
// same requests without them, pushes to 200 simulated proxies in a process of their own,
// names over real sockets, memory. "make bench" runs it.
//
// Every benchmark bounds its own load in count or time and runs once. What is compared
// is measured in turns within one run (A B A B), and medians of the turns are reported,
// so that the machine's noise is in both.
//
// The test binary runs itself again as every other process that a benchmark needs: the
// server and the client in a mesh, the simulated proxies, the DNS client.
package bench

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// commands are what the first argument names when the binary runs itself.
var commands = map[string]func(args []string) error{
	"serve":   serve,
	"load":    load,
	"proxies": simulate,
	"dns":     askNames,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if command, ok := commands[os.Args[1]]; ok {
			if err := command(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	flag.Parse()
	if err := flag.Set("test.benchtime", "1x"); err != nil { // the loads bound themselves
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// self is the path of this binary.
func self(b *testing.B) string {
	b.Helper()
	path, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	return path
}

// child is a process that takes orders as lines of JSON on its standard input and
// answers each with one on its standard output.
type child struct {
	b   *testing.B
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end func() error
}

// start starts a process; the end of the benchmark ends it.
func start(b *testing.B, cmd *exec.Cmd) *child {
	b.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c := &child{b: b, cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(out)}
	ended := false
	c.end = func() error {
		if ended {
			return nil
		}
		ended = true
		in.Close() // its sign to go
		return cmd.Wait()
	}
	b.Cleanup(func() {
		if b.Failed() {
			cmd.Process.Kill()
		}
		c.end()
	})
	return c
}

// Order sends an order without waiting for its answer.
func (c *child) Order(order any) {
	c.b.Helper()
	if err := c.in.Encode(order); err != nil {
		c.b.Fatalf("%s: %v", c.cmd.Args, err)
	}
}

// Answer reads the next answer.
func (c *child) Answer(into any) {
	c.b.Helper()
	if err := c.out.Decode(into); err != nil {
		c.b.Fatalf("%s: %v", c.cmd.Args, err)
	}
}

// Ask is Order and Answer.
func (c *child) Ask(order, into any) {
	c.b.Helper()
	c.Order(order)
	c.Answer(into)
}

// report reports figures in place of the time per operation, which says nothing here.
func report(b *testing.B, figures map[string]float64) {
	b.ReportMetric(0, "ns/op")
	for unit, value := range figures {
		b.ReportMetric(value, unit)
	}
}

// quantile gives the value below which a share of the sorted values lies.
func quantile[T any](sorted []T, share float64) T {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
