package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// kindNames is how people write the kinds, the plural first.
var kindNames = []struct {
	kind  mesh.Kind
	names []string
}{
	{mesh.KindService, []string{"services", "service", "svc"}},
	{mesh.KindWorkload, []string{"workloads", "workload", "wl"}},
	{mesh.KindHTTPRoute, []string{"httproutes", "httproute"}},
	{mesh.KindGRPCRoute, []string{"grpcroutes", "grpcroute"}},
	{mesh.KindAuthorizationPolicy, []string{"authorizationpolicies", "authorizationpolicy", "policies", "policy"}},
	{mesh.KindMeshConfig, []string{"meshconfigs", "meshconfig"}},
}

// parseKind reads a kind as people write it.
func parseKind(s string) (mesh.Kind, error) {
	for _, k := range kindNames {
		if slices.Contains(k.names, strings.ToLower(s)) {
			return k.kind, nil
		}
	}
	return "", usagef("there is no kind %q; there are %s", s, strings.Join(plurals(), ", "))
}

func plurals() []string {
	var out []string
	for _, k := range kindNames {
		out = append(out, k.names[0])
	}
	return out
}

// label is a reference as KIND/NAME, with the namespace where it is not the default.
func label(r *apipb.Ref) string {
	name := r.GetName()
	if ns := r.GetNamespace(); ns != "" && ns != "default" {
		name = ns + "/" + name
	}
	return strings.ToLower(r.GetKind()) + "/" + name
}

// completeKindThenNames completes KIND, then names of objects of that kind.
func completeKindThenNames(f *clientFlags, extra ...string) cobra.CompletionFunc {
	return func(c *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(given) == 0 {
			return startingWith(typed, append(plurals(), extra...)), cobra.ShellCompDirectiveNoFileComp
		}
		kind, err := parseKind(given[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return startingWith(typed, objectNames(c.Context(), f, kind)), cobra.ShellCompDirectiveNoFileComp
	}
}

func startingWith(prefix string, names []string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) })
}

// completeNames completes the first argument by names of a kind.
func completeNames(f *clientFlags, kind mesh.Kind) cobra.CompletionFunc {
	return func(c *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return startingWith(typed, objectNames(c.Context(), f, kind)), cobra.ShellCompDirectiveNoFileComp
	}
}

// objectNames is for completion: no control plane, no names.
func objectNames(ctx context.Context, f *clientFlags, kind mesh.Kind) []string {
	if ctx == nil {
		return nil
	}
	cl, err := f.dial(ctx)
	if err != nil {
		return nil
	}
	defer cl.close()
	docs, err := cl.get(ctx, &apipb.GetRequest{Kind: string(kind), Namespace: f.namespace})
	if err != nil {
		return nil
	}
	var out []string
	for _, d := range docs {
		out = append(out, d.ref.GetName())
	}
	return out
}
