-- Where each order came from, so that what is done for it later belongs to the trace of the request that placed it: JSON of the
-- headers traceparent, tracestate and x-correlation-id. NULL for orders of earlier releases.
ALTER TABLE orders ADD COLUMN origin TEXT;
