SET ROLE shop;

CREATE TABLE documents (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9]([-a-z0-9]{0,62}[a-z0-9])?$'),
  body jsonb NOT NULL CHECK (jsonb_typeof(body) = 'object')
);

CREATE INDEX documents_body ON documents USING gin (body jsonb_path_ops);

INSERT INTO documents (id, body) VALUES
  ('linen', '{"name": "Washed linen", "colour": "#c9b99a", "price": 24.5, "stock": 112, "weave": "plain", "care": ["40 °C", "line dry"]}'),
  ('tweed', '{"name": "Harris tweed", "colour": "#6b5b45", "price": 78, "stock": 23, "weave": "twill", "care": ["dry clean"]}'),
  ('denim', '{"name": "Selvedge denim", "colour": "#2c3e66", "price": 41.9, "stock": 64, "weave": "twill", "care": ["30 °C", "inside out"]}'),
  ('damask', '{"name": "Silk damask", "colour": "#8c3b4a", "price": 129, "stock": 9, "weave": "jacquard", "care": ["dry clean"]}'),
  ('canvas', '{"name": "Cotton canvas", "colour": "#d8cfb8", "price": 15.2, "stock": 240, "weave": "plain", "care": ["60 °C"]}'),
  ('velvet', '{"name": "Cotton velvet", "colour": "#2f5d50", "price": 52, "stock": 37, "weave": "pile", "care": ["30 °C", "steam"]}'),
  ('gauze', '{"name": "Double gauze", "colour": "#e8d7d0", "price": 18.4, "stock": 88, "weave": "leno", "care": ["40 °C"]}'),
  ('satin', '{"name": "Duchess satin", "colour": "#b8a5c8", "price": 63.5, "stock": 31, "weave": "satin", "care": ["hand wash"]}');

