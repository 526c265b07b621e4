package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// applyFlags are the flags of apply, and of what else changes objects.
type applyFlags struct {
	clientFlags
	files   []string
	dryRun  bool
	wait    bool
	timeout time.Duration
}

func (f *applyFlags) addWait(c *cobra.Command) {
	c.Flags().BoolVar(&f.wait, "wait", false, "return when every proxy holds the change, or fail with what a proxy refuses and why")
	c.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long --wait waits")
}

func applyCommand(e *env) *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Create or change objects",
		Long: `Creates or changes the objects in YAML or JSON documents: all of them, or none where
anything is wrong. Every problem is told as FILE:LINE: KIND NAME: field: what and how to put it right.`,
		Example: `  heddle apply -f routes.yaml --wait
  heddle apply -f mesh/ --dry-run
  kubectl get httproute api -o yaml | heddle apply -f -`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if len(f.files) == 0 {
				return usagef("no file named; say -f FILE, -f DIRECTORY or -f -")
			}
			sources, err := readSources(e, f.files)
			if err != nil {
				return err
			}
			return f.run(c, func(ctx context.Context, cl *client) error {
				reply, err := cl.apply(ctx, e.stderr, sources, f.namespace, f.dryRun)
				if err != nil {
					return err
				}
				return f.finish(ctx, e, cl, reply)
			})
		},
	}
	f.add(c, "json", "yaml", "name")
	f.addWait(c)
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "file, directory (its .yaml, .yml and .json files) or - for stdin; repeatable")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "check only; change nothing")
	return c
}

// errTold is an error whose lines have been written.
var errTold = &exitError{exitFailure, nil}

// apply sends documents. What is wrong with them goes to w, a line each.
func (c *client) apply(ctx context.Context, w io.Writer, sources []source, namespace string, dryRun bool) (*apipb.ApplyReply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if len(sources) == 1 {
		reply, err := c.objects.Apply(ctx, &apipb.ApplyRequest{Documents: sources[0].data, Source: sources[0].name, DefaultNamespace: namespace, DryRun: dryRun})
		return reply, tellProblems(w, err, nil)
	}
	// Each file alone first, so that one's errors do not hide another's.
	var failed error
	var full []source
	for _, s := range sources {
		if empty(s.data) {
			continue
		}
		full = append(full, s)
		_, err := c.objects.Apply(ctx, &apipb.ApplyRequest{Documents: s.data, Source: s.name, DefaultNamespace: namespace, DryRun: true})
		if err := tellProblems(w, err, nil); err != nil {
			if !errors.Is(err, errTold) {
				return nil, err
			}
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	data, first := join(full)
	reply, err := c.objects.Apply(ctx, &apipb.ApplyRequest{Documents: data, DefaultNamespace: namespace, DryRun: dryRun})
	return reply, tellProblems(w, err, func(p *apipb.Problem) {
		file, line := locate(full, first, int(p.GetLine()))
		p.Source, p.Line = file, int32(line)
	})
}

// empty reports whether a file has nothing but comments and separators.
func empty(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

// tellProblems writes the problems of a refused Apply, and gives errTold then; any other
// error is given back.
func tellProblems(w io.Writer, err error, adjust func(*apipb.Problem)) error {
	problems := api.Problems(err)
	if len(problems) == 0 || status.Code(err) != codes.InvalidArgument {
		return err
	}
	for _, p := range problems {
		if adjust != nil {
			adjust(p)
		}
		fmt.Fprintln(w, problemLine(p))
	}
	if lines := strings.Count(status.Convert(err).Message(), "\n") + 1; lines > len(problems) {
		fmt.Fprintf(w, "and %d more\n", lines-len(problems))
	}
	return errTold
}

// problemLine is FILE:LINE: KIND NAME: field: message, without what is unknown.
func problemLine(p *apipb.Problem) string {
	var b strings.Builder
	if p.GetSource() != "" {
		b.WriteString(p.GetSource() + ":")
		if p.GetLine() > 0 {
			fmt.Fprintf(&b, "%d:", p.GetLine())
		}
		b.WriteByte(' ')
	}
	if r := p.GetRef(); r.GetKind() != "" {
		name := r.GetName()
		if r.GetNamespace() != "" {
			name = r.GetNamespace() + "/" + name
		}
		b.WriteString(r.GetKind() + " " + name + ": ")
	}
	if p.GetField() != "" {
		b.WriteString(p.GetField() + ": ")
	}
	b.WriteString(p.GetMessage())
	return b.String()
}

// applied is one result in JSON.
type applied struct {
	Kind       string   `json:"kind"`
	Namespace  string   `json:"namespace,omitempty"`
	Name       string   `json:"name"`
	Action     string   `json:"action"`
	Generation int64    `json:"generation,omitempty"`
	Warnings   []string `json:"warnings,omitempty"`
}

// finish writes what became of the objects, and waits if that is asked for.
func (f *applyFlags) finish(ctx context.Context, e *env, cl *client, reply *apipb.ApplyReply) error {
	if err := f.writeResults(e, reply.GetResults()); err != nil {
		return err
	}
	if !f.wait || f.dryRun {
		return nil
	}
	return waitLive(ctx, e, cl, reply, f.timeout)
}

func (f *applyFlags) writeResults(e *env, results []*apipb.Result) error {
	var items []applied
	for _, r := range results {
		action := strings.ToLower(strings.ReplaceAll(r.GetAction().String(), "_", " "))
		items = append(items, applied{r.GetRef().GetKind(), r.GetRef().GetNamespace(), r.GetRef().GetName(), action, r.GetGeneration(), r.GetWarnings()})
		for _, warning := range r.GetWarnings() {
			fmt.Fprintf(e.stderr, "warning: %s: %s\n", label(r.GetRef()), warning)
		}
		switch f.output {
		case "name":
			fmt.Fprintln(e.stdout, label(r.GetRef()))
		case "":
			if f.dryRun {
				action += " (dry run)"
			}
			fmt.Fprintf(e.stdout, "%s %s\n", label(r.GetRef()), action)
		}
	}
	if f.output == "json" || f.output == "yaml" {
		return writeList(e.stdout, f.output, items)
	}
	return nil
}
