package api

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
)

// Apply stores documents and gives them to the mesh, all or none.
func (s *Server) Apply(_ context.Context, r *apipb.ApplyRequest) (*apipb.ApplyReply, error) {
	options := s.config.Options
	options.DefaultNamespace = cmp.Or(r.GetDefaultNamespace(), options.DefaultNamespace)
	objects, err := manifest.Parse(r.GetSource(), r.GetDocuments(), options)
	var list manifest.Errors
	switch {
	case errors.As(err, &list):
		return nil, Invalid(list)
	case err != nil:
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case len(objects) == 0:
		return nil, Invalid(manifest.Errors{{Source: r.GetSource(), Message: "no objects; give at least one document"}})
	}
	batch := state.Batch{DryRun: r.GetDryRun()}
	for _, o := range objects {
		batch.Put = append(batch.Put, state.Item{Object: o.Object, Document: o.Document})
	}
	return s.write(batch)
}

// Delete removes objects.
func (s *Server) Delete(_ context.Context, r *apipb.DeleteRequest) (*apipb.ApplyReply, error) {
	batch := state.Batch{DryRun: r.GetDryRun()}
	for _, pb := range r.GetRefs() {
		ref, err := s.ref(pb.GetKind(), pb.GetNamespace(), pb.GetName())
		if err != nil {
			return nil, err
		}
		if ref.Kind == mesh.KindWorkload {
			return nil, status.Errorf(codes.InvalidArgument, "%s: a workload ends with its sidecar; stop that", ref)
		}
		if ref.Name.Name == "" {
			return nil, status.Errorf(codes.InvalidArgument, "a %s to delete has no name", ref.Kind)
		}
		batch.Delete = append(batch.Delete, state.Delete{Ref: ref})
	}
	return s.write(batch)
}

// ref checks the kind and fills the namespace in.
func (s *Server) ref(kind, namespace, name string) (mesh.Ref, error) {
	ref := mesh.Ref{Kind: mesh.Kind(kind), Name: mesh.Name{Namespace: namespace, Name: name}}
	if !slices.Contains(manifest.Kinds(), ref.Kind) {
		return ref, status.Errorf(codes.InvalidArgument, "heddle has no kind %q; it has %v", kind, manifest.Kinds())
	}
	if ref.Kind == mesh.KindMeshConfig {
		ref.Namespace = ""
	} else {
		ref.Namespace = cmp.Or(namespace, s.config.Options.DefaultNamespace, "default")
	}
	return ref, nil
}

var actions = map[state.Action]apipb.Result_Action{
	state.Unchanged:  apipb.Result_UNCHANGED,
	state.Created:    apipb.Result_CREATED,
	state.Configured: apipb.Result_CONFIGURED,
	state.Deleted:    apipb.Result_DELETED,
	state.Missing:    apipb.Result_NOT_FOUND,
}

func (s *Server) write(batch state.Batch) (*apipb.ApplyReply, error) {
	written, err := s.config.Writer.Write(batch)
	if err != nil {
		return nil, statusOf(err)
	}
	reply := &apipb.ApplyReply{Revision: written.Revision}
	for _, o := range written.Outcomes {
		reply.Results = append(reply.Results, &apipb.Result{Ref: refPB(o.Ref), Action: actions[o.Action],
			Generation: o.Generation, Warnings: written.Warnings[o.Ref]})
	}
	return reply, nil
}

// Get streams objects with their status.
func (s *Server) Get(r *apipb.GetRequest, stream grpc.ServerStreamingServer[apipb.Document]) error {
	var want mesh.Ref
	if r.GetKind() != "" || r.GetName() != "" {
		var err error
		if want, err = s.ref(r.GetKind(), r.GetNamespace(), r.GetName()); err != nil {
			return err
		}
	} else {
		want.Namespace = cmp.Or(r.GetNamespace(), s.config.Options.DefaultNamespace, "default")
	}
	records, err := s.config.Writer.DB().Records(want.Kind)
	if err != nil {
		return statusOf(err)
	}
	found := false
	for _, record := range records {
		inNamespace := r.GetAllNamespaces() || record.Ref.Namespace == want.Namespace || record.Ref.Namespace == ""
		if !inNamespace || r.GetName() != "" && record.Ref.Name.Name != r.GetName() {
			continue
		}
		found = true
		if err := s.send(stream, record); err != nil {
			return err
		}
	}
	if !found && r.GetName() != "" {
		return status.Errorf(codes.NotFound, "%s not found", want)
	}
	return nil
}

func (s *Server) send(stream grpc.ServerStreamingServer[apipb.Document], r state.Record) error {
	stored := manifest.Stored{Document: r.Document, Generation: r.Generation, Created: r.Created}
	if s.config.Status != nil {
		stored.Status = s.config.Status(r.Ref)
	}
	document, err := stored.JSON()
	if err != nil {
		return status.Errorf(codes.Internal, "%s: %v", r.Ref, err)
	}
	return stream.Send(&apipb.Document{Ref: refPB(r.Ref), Json: document})
}
