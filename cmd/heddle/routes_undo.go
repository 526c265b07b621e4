package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

func routesUndoCommand(e *env) *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "undo SERVICE",
		Short: "Take the last split or shift of a service back",
		Long: fmt.Sprintf(`Makes the HTTPRoute SERVICE-split what it was before the last split or shift, up to %d
times; a route that was not there before is deleted.`, maxPrevious),
		Example:           `  heddle routes undo api --wait`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeNames(&f.clientFlags, mesh.KindService),
		RunE: func(c *cobra.Command, given []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				reply, err := cl.undoSplit(ctx, e.stderr, f.namespace, given[0])
				if err != nil {
					return err
				}
				return f.finish(ctx, e, cl, reply)
			})
		},
	}
	f.add(c, "json", "yaml", "name")
	f.addWait(c)
	return c
}

func (c *client) undoSplit(ctx context.Context, w io.Writer, namespace, service string) (*apipb.ApplyReply, error) {
	ref := &apipb.Ref{Kind: string(mesh.KindHTTPRoute), Namespace: namespace, Name: splitName(service)}
	docs, err := c.get(ctx, &apipb.GetRequest{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
	if status.Code(err) == codes.NotFound {
		return nil, fmt.Errorf("service %s has no split to undo: there is no HTTPRoute %s", service, ref.Name)
	}
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, errors.New("the control plane gave another number of routes than one")
	}
	route, err := readRoute(docs[0].object)
	if err != nil {
		return nil, err
	}
	before, err := route.undo()
	if err != nil {
		return nil, err
	}
	if before != nil {
		return c.applyDoc(ctx, w, before, false)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.objects.Delete(ctx, &apipb.DeleteRequest{Refs: []*apipb.Ref{ref}})
}
