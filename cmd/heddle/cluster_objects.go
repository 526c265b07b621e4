package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// clusterObjects reads and writes the objects of a mesh on Kubernetes with kubectl.
type clusterObjects struct{ kubectl kubectl }

// clusterKinds are the kinds as kubectl takes them; Services are the cluster's, which users
// change by other means, but read here, too.
var clusterKinds = map[mesh.Kind]string{
	mesh.KindService:             "services",
	mesh.KindHTTPRoute:           "httproutes.gateway.networking.k8s.io",
	mesh.KindGRPCRoute:           "grpcroutes.gateway.networking.k8s.io",
	mesh.KindAuthorizationPolicy: "authorizationpolicies.mesh.heddle.dev",
	mesh.KindMeshConfig:          "meshconfigs.mesh.heddle.dev",
}

// Apply checks documents as the control plane of one machine does, and gives them to
// kubectl, all or none as far as the check goes.
func (o *clusterObjects) Apply(ctx context.Context, in *apipb.ApplyRequest, _ ...grpc.CallOption) (*apipb.ApplyReply, error) {
	objects, err := manifest.Parse(in.GetSource(), in.GetDocuments(), manifest.Options{DefaultNamespace: in.GetDefaultNamespace()})
	var list manifest.Errors
	if errors.As(err, &list) {
		return nil, api.Invalid(list)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if len(objects) == 0 {
		return nil, api.Invalid(manifest.Errors{{Source: in.GetSource(), Message: "no objects; give at least one document"}})
	}
	reply := new(apipb.ApplyReply)
	for _, object := range objects {
		ref := &apipb.Ref{Kind: string(object.Ref.Kind), Namespace: object.Ref.Namespace, Name: object.Ref.Name.Name}
		before, err := o.one(ctx, ref)
		if err != nil && status.Code(err) != codes.NotFound {
			return nil, err
		}
		arguments := []string{"apply", "--server-side", "--field-manager=heddle-cli", "--force-conflicts", "-f", "-", "-o", "json"}
		if in.GetDryRun() {
			arguments = append(arguments, "--dry-run=server")
		}
		data, err := o.kubectl.run(ctx, object.Document, arguments...)
		if err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		var after header
		if err := json.Unmarshal(data, &after); err != nil {
			return nil, status.Errorf(codes.Internal, "read what kubectl printed: %v", err)
		}
		action := apipb.Result_CONFIGURED
		switch {
		case before.Metadata.UID == "":
			action = apipb.Result_CREATED
		case before.Metadata.Generation == after.Metadata.Generation:
			action = apipb.Result_UNCHANGED
		}
		reply.Results = append(reply.Results, &apipb.Result{Ref: ref, Action: action, Generation: after.Metadata.Generation})
	}
	return reply, nil
}

// header is what is read of an object.
type header struct {
	Kind     string
	Metadata struct {
		Name, Namespace, UID string
		Generation           int64
	}
}

func (o *clusterObjects) one(ctx context.Context, ref *apipb.Ref) (h header, err error) {
	arguments, err := o.resource(ref.GetKind())
	if err != nil {
		return h, err
	}
	arguments = append([]string{"get"}, append(arguments, ref.GetName(), "-o", "json", "--ignore-not-found")...)
	if ref.GetNamespace() != "" {
		arguments = append(arguments, "-n", ref.GetNamespace())
	}
	data, err := o.kubectl.run(ctx, nil, arguments...)
	if err != nil {
		return h, status.Error(codes.FailedPrecondition, err.Error())
	}
	if len(data) == 0 {
		return h, status.Errorf(codes.NotFound, "%s not found", label(ref))
	}
	return h, json.Unmarshal(data, &h)
}

// resource is the argument that names a kind.
func (o *clusterObjects) resource(kind string) ([]string, error) {
	name, ok := clusterKinds[mesh.Kind(kind)]
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "on Kubernetes there is no kind %s; see the pods", kind)
	}
	return []string{name}, nil
}

// Delete deletes objects.
func (o *clusterObjects) Delete(ctx context.Context, in *apipb.DeleteRequest, _ ...grpc.CallOption) (*apipb.ApplyReply, error) {
	reply := new(apipb.ApplyReply)
	for _, ref := range in.GetRefs() {
		ref = &apipb.Ref{Kind: ref.GetKind(), Name: ref.GetName(), Namespace: cmp.Or(ref.GetNamespace(), "default")}
		action := apipb.Result_DELETED
		if _, err := o.one(ctx, ref); status.Code(err) == codes.NotFound {
			action = apipb.Result_NOT_FOUND
		} else if err != nil {
			return nil, err
		} else {
			arguments := []string{"delete", clusterKinds[mesh.Kind(ref.GetKind())], ref.GetName(), "-n", ref.GetNamespace(), "--wait=false"}
			if in.GetDryRun() {
				arguments = append(arguments, "--dry-run=server")
			}
			if _, err := o.kubectl.run(ctx, nil, arguments...); err != nil {
				return nil, status.Error(codes.FailedPrecondition, err.Error())
			}
		}
		reply.Results = append(reply.Results, &apipb.Result{Ref: ref, Action: action})
	}
	return reply, nil
}

// Get lists objects. Kinds whose definitions are not installed have none.
func (o *clusterObjects) Get(ctx context.Context, in *apipb.GetRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[apipb.Document], error) {
	var kinds []string
	if in.GetKind() != "" {
		if _, err := o.resource(in.GetKind()); err != nil {
			return nil, err
		}
		kinds = []string{in.GetKind()}
	} else {
		for _, k := range manifest.Kinds() {
			if _, ok := clusterKinds[k]; ok {
				kinds = append(kinds, string(k))
			}
		}
	}
	out := new(documents)
	for _, kind := range kinds {
		arguments := []string{"get", clusterKinds[mesh.Kind(kind)]}
		if in.GetAllNamespaces() {
			arguments = append(arguments, "-A")
		} else {
			arguments = append(arguments, "-n", cmp.Or(in.GetNamespace(), "default"))
		}
		items, err := o.kubectl.list(ctx, arguments...)
		if err != nil && strings.Contains(err.Error(), "the server doesn't have a resource type") {
			continue
		}
		if err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		for _, item := range items {
			var h header
			if err := json.Unmarshal(item, &h); err != nil {
				return nil, err
			}
			if in.GetName() == "" || in.GetName() == h.Metadata.Name {
				*out = append(*out, &apipb.Document{Ref: &apipb.Ref{Kind: h.Kind, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}, Json: item})
			}
		}
	}
	if len(*out) == 0 && in.GetName() != "" {
		return nil, status.Errorf(codes.NotFound, "%s %s/%s not found", in.GetKind(), cmp.Or(in.GetNamespace(), "default"), in.GetName())
	}
	return &documentStream{rest: *out}, nil
}

type documents []*apipb.Document

// documentStream gives documents that are there already.
type documentStream struct {
	grpc.ClientStream // nil: nobody asks for headers
	rest              documents
}

// Recv gives the next document.
func (s *documentStream) Recv() (*apipb.Document, error) {
	if len(s.rest) == 0 {
		return nil, io.EOF
	}
	next := s.rest[0]
	s.rest = s.rest[1:]
	return next, nil
}
