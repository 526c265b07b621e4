package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

var (
	errNoDocument  = errors.New("no such document")
	errBadDocument = errors.New("not a document that can be stored")
)

// documents is the table of documents. A document's JSON has its id.
type documents struct {
	pool   *pgxpool.Pool
	tracer trace.Tracer
}

// openDocuments makes the pool of connections. The database need not be there yet.
func openDocuments(ctx context.Context, url string) (*documents, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err) // pgx leaves the password out
	}
	config.ConnConfig.ConnectTimeout = 2 * time.Second
	config.MaxConns = 8
	// The sidecars encrypt and authenticate; between program and sidecar is loopback.
	config.ConnConfig.TLSConfig, config.ConnConfig.Fallbacks = nil, nil
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return &documents{pool, otel.Tracer("shop/api")}, nil
}

func (d *documents) close() { d.pool.Close() }

// any gives one by chance, not always the same.
func (d *documents) any(ctx context.Context) (json.RawMessage, error) {
	return d.query(ctx, "SELECT", `SELECT body || jsonb_build_object('id', id) FROM documents ORDER BY random() LIMIT 1`)
}

func (d *documents) list(ctx context.Context) (json.RawMessage, error) {
	return d.query(ctx, "SELECT", `SELECT jsonb_build_object('items', coalesce(jsonb_agg(body || jsonb_build_object('id', id) ORDER BY id), '[]'))
		FROM (SELECT * FROM documents ORDER BY id LIMIT 1000) AS first`)
}

func (d *documents) get(ctx context.Context, id string) (json.RawMessage, error) {
	if !documentID.MatchString(id) {
		return nil, errNoDocument
	}
	return d.query(ctx, "SELECT", `SELECT body || jsonb_build_object('id', id) FROM documents WHERE id = $1`, id)
}

// put stores a document, in place of one that was there. Twice is as good as once.
func (d *documents) put(ctx context.Context, id string, body []byte) (json.RawMessage, error) {
	return d.query(ctx, "INSERT", `INSERT INTO documents (id, body) VALUES ($1, $2::jsonb)
		ON CONFLICT (id) DO UPDATE SET body = excluded.body RETURNING body || jsonb_build_object('id', id)`, id, string(body))
}

// delete removes a document. An attempt whose answer was lost may have removed it before
// the next one finds none: that is errNoDocument, too.
func (d *documents) delete(ctx context.Context, id string) error {
	if !documentID.MatchString(id) {
		return errNoDocument
	}
	_, err := d.query(ctx, "DELETE", `DELETE FROM documents WHERE id = $1 RETURNING body`, id)
	return err
}

// query runs a statement that gives one JSON value, in a span by the semantic conventions
// for databases. The text holds placeholders and no values, so it may be in the span.
func (d *documents) query(ctx context.Context, operation, statement string, args ...any) (doc json.RawMessage, err error) {
	config := d.pool.Config().ConnConfig
	ctx, span := d.tracer.Start(ctx, operation+" documents", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.DBSystemNamePostgreSQL, semconv.DBNamespace(config.Database), semconv.DBOperationName(operation),
		semconv.DBCollectionName("documents"), semconv.DBQueryText(strings.Join(strings.Fields(statement), " ")),
		semconv.ServerAddress(config.Host), semconv.ServerPort(int(config.Port))))
	defer span.End()
	doc, err = d.try(ctx, statement, args)
	switch problem := (*pgconn.PgError)(nil); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, errNoDocument // an answer, not an error of the database
	case errors.As(err, &problem):
		span.SetAttributes(semconv.DBResponseStatusCode(problem.Code))
		if strings.HasPrefix(problem.Code, "22") { // class 22, data exception: \u0000 in a text
			err = fmt.Errorf("%w: %s", errBadDocument, problem.Message)
		}
	}
	if err != nil {
		span.SetStatus(codes.Error, "query failed")
		span.RecordError(err)
	}
	return doc, err
}

// try asks again on a new connection while old ones turn out to be dead, as they all do
// when the database was restarted. Every statement here may be run twice.
func (d *documents) try(ctx context.Context, statement string, args []any) (doc json.RawMessage, err error) {
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		err = d.pool.QueryRow(ctx, statement, args...).Scan(&doc)
		if err == nil || !lost(err) || ctx.Err() != nil {
			return doc, err
		}
		d.pool.Reset() // the others are dead, too
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// lost says of an error that the connection, or the server behind it, has gone, and that
// another attempt may do better.
func lost(err error) bool {
	if errors.Is(err, pgx.ErrNoRows) {
		return false
	}
	if problem := (*pgconn.PgError)(nil); errors.As(err, &problem) {
		// Class 57P: admin_shutdown, crash_shutdown, cannot_connect_now.
		return strings.HasPrefix(problem.Code, "57P")
	}
	return true
}
