// Package webhook answers the API server's admission calls: it puts sidecars into pods and
// checks the objects of the mesh. What is decided is in package inject and in
// discovery/manifest; here is the protocol and the certificate.
//
// The certificate is made and rotated here. All replicas share one, in a Secret; whoever
// finds it old makes the next. No replica shows a new certificate before its CA is in the
// webhook configurations, and the CA before it stays there as long as any shows the old one.
package webhook
