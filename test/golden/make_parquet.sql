-- Golden Parquet files, written by DuckDB 1.x: parquet.json holds each, in Base64, under the name before it.
-- snappy
copy (select 'text ' || i as text, case when i % 2 = 0 then 'web' else 'code/ts' end as kind, i::BIGINT as id from range(5) t(i)) to 'x.parquet' (format parquet, compression snappy);
-- zstd, many row groups
copy (select 'text ' || (i*7919 % 9973)::VARCHAR || repeat(chr(33), (i % 3)::INT) as text, (i % 3)::INTEGER as cluster from range(2100) t(i)) to 'x.parquet' (format parquet, compression zstd, row_group_size 2048);
-- gzip, nested
copy (select {'text': 'inner ' || i, 'lang': 'en'} as doc, 'x' as source from range(4) t(i)) to 'x.parquet' (format parquet, compression gzip);
-- lz4_raw
copy (select 'é ' || i as text from range(3) t(i)) to 'x.parquet' (format parquet, compression lz4_raw);
-- brotli
copy (select 'b ' || i as text from range(3) t(i)) to 'x.parquet' (format parquet, compression brotli);
-- uncompressed, with nulls
copy (select case when i = 1 then null else 'n ' || i end as text from range(4) t(i)) to 'x.parquet' (format parquet, compression uncompressed);
-- messages
copy (select [{'role':'user','content':'hi'},{'role':'assistant','content':'yes'}] as messages, 1 as text from range(2) t(i)) to 'x.parquet' (format parquet, compression snappy);
