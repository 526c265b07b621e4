package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/proxy/sidecar"
)

// maxStatus is the largest answer of a sidecar's status socket, in bytes.
const maxStatus = 1 << 20

func svidCommand(e *env) *cobra.Command {
	var f clientFlags
	var socket string
	c := &cobra.Command{
		Use:   "svid WORKLOAD",
		Short: "Show a workload's identity: its SPIFFE ID, certificates and rotation",
		Long: `Shows the X.509-SVID of a workload and its chain, the leaf first, as its sidecar tells
them, never a key. Where the sidecar is not of this machine or user, only what the control
plane knows is shown.`,
		Example: `  heddle svid api-1
  heddle svid api-1 -o json`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeNames(&f, mesh.KindWorkload),
		RunE: func(c *cobra.Command, given []string) error {
			item, err := findSVID(c, &f, socket, given[0])
			if err != nil {
				return err
			}
			if f.output != "" {
				return writeAs(e.stdout, f.output, item)
			}
			return item.write(e.stdout, time.Now())
		},
	}
	f.add(c, "json", "yaml")
	c.Flags().StringVar(&socket, "status", "", "the sidecar's status socket (default: looked for)")
	return c
}

// svidItem is what is shown of an SVID.
type svidItem struct {
	Namespace string    `json:"namespace"`
	Workload  string    `json:"workload"`
	ID        string    `json:"id"`
	Source    string    `json:"source"` // sidecar or controlplane
	Expires   time.Time `json:"expires,omitzero"`
	RenewAt   time.Time `json:"renewAt,omitzero"`
	LastError string    `json:"lastError,omitempty"`
	DiskError string    `json:"diskError,omitempty"`
	// Chain is empty where only the control plane was asked.
	Chain []sidecar.Certificate `json:"chain,omitempty"`
}

// newSVIDItem is what a sidecar says.
func newSVIDItem(s *sidecar.Status) *svidItem {
	i := s.Identity
	return &svidItem{Namespace: s.Namespace, Workload: s.Workload, ID: i.ID, Source: "sidecar", Expires: i.Expires,
		RenewAt: i.RenewAt, LastError: i.LastError, DiskError: i.DiskError, Chain: i.Chain}
}

// findSVID asks the sidecar, else the control plane.
func findSVID(c *cobra.Command, f *clientFlags, socket, workload string) (*svidItem, error) {
	ctx := c.Context()
	if socket != "" {
		status, err := askSidecar(ctx, socket)
		if err != nil {
			return nil, err
		}
		return newSVIDItem(status), nil
	}
	for _, path := range f.statusSockets(ctx, workload) {
		status, err := askSidecar(ctx, path)
		if err == nil && status.Workload == workload && status.Namespace == f.namespace {
			return newSVIDItem(status), nil
		}
	}
	item := &svidItem{Namespace: f.namespace, Workload: workload, Source: "controlplane"}
	return item, f.run(c, func(ctx context.Context, cl *client) error {
		docs, err := cl.get(ctx, &apipb.GetRequest{Kind: string(mesh.KindWorkload), Namespace: f.namespace, Name: workload})
		if err != nil {
			return err
		}
		var spec workloadSpec
		if err := json.Unmarshal(docs[0].Spec, &spec); err != nil {
			return err
		}
		item.ID = spec.Identity
		return nil
	})
}

// statusSockets are where a workload's sidecar may have its status socket: beside the
// control plane of 'heddle up', or where a 'heddle sidecar' has it by default.
func (f *clientFlags) statusSockets(ctx context.Context, workload string) []string {
	const name = "status.sock"
	var out []string
	if socket, err := f.socket(ctx); err == nil {
		out = append(out, filepath.Join(filepath.Dir(socket), "sidecars", workload, name))
	}
	for _, pattern := range []string{
		filepath.Join(stateHome(), "projects", "*", "sidecars", "*", name),
		filepath.Join(stateHome(), "sidecars", "*", "run", name),
		filepath.Join("/run/heddle", "*", name),
	} {
		if paths, err := filepath.Glob(pattern); err == nil {
			out = append(out, paths...)
		}
	}
	return out
}

// askSidecar reads a status socket.
func askSidecar(ctx context.Context, socket string) (*sidecar.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidecar/status", nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the sidecar at %s: %w", socket, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the sidecar at %s: %s", socket, response.Status)
	}
	status := new(sidecar.Status)
	if err := json.NewDecoder(io.LimitReader(response.Body, maxStatus)).Decode(status); err != nil {
		return nil, fmt.Errorf("read the status of the sidecar at %s: %w", socket, err)
	}
	return status, nil
}

func (s *svidItem) write(w io.Writer, now time.Time) error {
	rows := [][]string{{"SPIFFE ID:", s.ID}}
	if s.Source != "sidecar" {
		rows = append(rows, []string{"SVID:", "its sidecar cannot be asked from here; see --status"})
		return table(w, []string{"Workload:", s.Namespace + "/" + s.Workload}, rows)
	}
	rows = append(rows,
		[]string{"Expires:", s.Expires.Local().Format(time.DateTime) + " (" + in(s.Expires, now) + ")"},
		[]string{"Renewal:", s.RenewAt.Local().Format(time.DateTime) + " (" + in(s.RenewAt, now) + ")"})
	if s.LastError != "" {
		rows = append(rows, []string{"Last error:", s.LastError})
	}
	if s.DiskError != "" {
		rows = append(rows, []string{"Disk error:", s.DiskError})
	}
	for i, c := range s.Chain {
		rows = append(rows,
			[]string{fmt.Sprintf("Certificate %d:", i+1), c.Subject},
			[]string{"  Issuer:", c.Issuer},
			[]string{"  Serial:", c.Serial},
			[]string{"  Valid:", c.NotBefore.Local().Format(time.DateTime) + " to " + c.NotAfter.Local().Format(time.DateTime)})
	}
	return table(w, []string{"Workload:", s.Namespace + "/" + s.Workload}, rows)
}

// in is how far t is from now.
func in(t, now time.Time) string {
	if t.Before(now) {
		return age(t, now) + " ago"
	}
	return "in " + age(now, t)
}
