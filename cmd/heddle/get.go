package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// watchInterval is how often --watch looks.
const watchInterval = time.Second

// getFlags are the flags of get.
type getFlags struct {
	clientFlags
	all   bool
	watch bool
}

func getCommand(e *env) *cobra.Command {
	var f getFlags
	c := &cobra.Command{
		Use:   "get KIND|all [NAME]",
		Short: "List objects, or show one",
		Long:  "Lists the objects of a kind with how they fare; LIVE is how many of the proxies that an object concerns hold it.",
		Example: `  heddle get services
  heddle get httproute api-split -o yaml
  heddle get all -A -o json
  heddle get workloads --watch`,
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: completeKindThenNames(&f.clientFlags, "all"),
		RunE: func(c *cobra.Command, given []string) error {
			request := &apipb.GetRequest{Namespace: f.namespace, AllNamespaces: f.all}
			if given[0] != "all" {
				kind, err := parseKind(given[0])
				if err != nil {
					return err
				}
				request.Kind = string(kind)
			} else if len(given) == 2 {
				return usagef("'get all' takes no name; say which kind %q is of", given[1])
			}
			if len(given) == 2 {
				request.Name = given[1]
			}
			return f.clientFlags.run(c, func(ctx context.Context, cl *client) error { return f.get(ctx, e, cl, request) })
		},
	}
	f.add(c, "json", "yaml", "wide", "name")
	c.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "of all namespaces")
	c.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on and show what changes")
	return c
}

func (f *getFlags) get(ctx context.Context, e *env, cl *client, r *apipb.GetRequest) error {
	docs, err := cl.get(ctx, r)
	if err != nil {
		return err
	}
	if len(docs) == 0 && f.output != "json" && f.output != "yaml" {
		fmt.Fprintf(e.stderr, "no %s in %s\n", orAll(r.GetKind()), f.where())
	}
	if err := f.write(e.stdout, docs, r.GetName() != ""); err != nil || !f.watch {
		return err
	}
	return f.follow(ctx, e, cl, r, docs)
}

func orAll(kind string) string {
	if kind == "" {
		return "objects"
	}
	return kind
}

func (f *getFlags) where() string {
	if f.all {
		return "any namespace"
	}
	return "namespace " + f.namespace
}

// write shows objects; one that was asked for by name stands alone in JSON and YAML.
func (f *getFlags) write(w io.Writer, docs []document, single bool) error {
	switch f.output {
	case "json", "yaml":
		if single && len(docs) == 1 {
			return writeAs(w, f.output, docs[0].raw)
		}
		var items []json.RawMessage
		for _, d := range docs {
			items = append(items, d.raw)
		}
		return writeList(w, f.output, items)
	case "name":
		for _, d := range docs {
			fmt.Fprintln(w, label(d.ref))
		}
		return nil
	}
	return f.tables(w, docs)
}

// tables writes one table per kind.
func (f *getFlags) tables(w io.Writer, docs []document) error {
	for start := 0; start < len(docs); {
		end := start
		for end < len(docs) && docs[end].Kind == docs[start].Kind {
			end++
		}
		if start > 0 {
			fmt.Fprintln(w)
		}
		header, rows := tableOf(mesh.Kind(docs[start].Kind), docs[start:end], f.output == "wide", f.all, time.Now())
		if err := table(w, header, rows); err != nil {
			return err
		}
		start = end
	}
	return nil
}

// follow shows what changes, until it is interrupted. There is no stream of objects:
// it asks again and compares.
func (f *getFlags) follow(ctx context.Context, e *env, cl *client, r *apipb.GetRequest, seen []document) error {
	last := map[string]json.RawMessage{}
	for _, d := range seen {
		last[d.ref.String()] = d.raw
	}
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		request := &apipb.GetRequest{Kind: r.GetKind(), Namespace: r.GetNamespace(), AllNamespaces: r.GetAllNamespaces()}
		docs, err := cl.get(ctx, request)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		now := map[string]json.RawMessage{}
		var changed []document
		for _, d := range docs {
			if r.GetName() != "" && d.ref.GetName() != r.GetName() {
				continue
			}
			key := d.ref.String()
			now[key] = d.raw
			if !bytes.Equal(last[key], d.raw) {
				changed = append(changed, d)
			}
			delete(last, key)
		}
		for key := range last {
			fmt.Fprintf(e.stderr, "deleted %s\n", key)
		}
		last = now
		if len(changed) > 0 {
			if err := f.write(e.stdout, changed, false); err != nil {
				return err
			}
		}
	}
}
