BEGIN TRANSACTION;
CREATE TABLE forecasts (
	seq INTEGER NOT NULL, 
	symbol VARCHAR(16) NOT NULL, 
	timeframe VARCHAR(4) NOT NULL, 
	as_of VARCHAR(32) NOT NULL, 
	model_id VARCHAR(64) NOT NULL, 
	body TEXT NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (symbol, timeframe, as_of, model_id)
);
INSERT INTO "forecasts" VALUES(1,'EURUSD','H1','2024-03-04T01:00:00Z','h1-0','{"as_of":"2024-03-04T01:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T02:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T04:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-0","reason":"","stale":false,"symbol":"EURUSD","timeframe":"H1"}','0000000000000000000000000000000000000000000000000000000000000000','8513372d7010b9b7208218ce4f1745a5615ad4c6d7a90a789801d4d6fccabb6d');
INSERT INTO "forecasts" VALUES(2,'GBPUSD','H1','2024-03-04T01:00:00Z','h1-0','{"as_of":"2024-03-04T01:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T02:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T04:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-0","reason":"","stale":false,"symbol":"GBPUSD","timeframe":"H1"}','8513372d7010b9b7208218ce4f1745a5615ad4c6d7a90a789801d4d6fccabb6d','dd4cbf5a67520511d0760f32ef1234f8ad07b857aef2899c0d821b9bd42214ab');
INSERT INTO "forecasts" VALUES(3,'EURUSD','H1','2024-03-04T02:00:00Z','h1-0','{"as_of":"2024-03-04T02:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T03:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T05:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-0","reason":"","stale":false,"symbol":"EURUSD","timeframe":"H1"}','dd4cbf5a67520511d0760f32ef1234f8ad07b857aef2899c0d821b9bd42214ab','5b5bddb9a848ea73eab702e6e4e013feeea20aa110f92c50b1523e6bcf69dbf5');
INSERT INTO "forecasts" VALUES(4,'GBPUSD','H1','2024-03-04T02:00:00Z','h1-0','{"as_of":"2024-03-04T02:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T03:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T05:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-0","reason":"","stale":false,"symbol":"GBPUSD","timeframe":"H1"}','5b5bddb9a848ea73eab702e6e4e013feeea20aa110f92c50b1523e6bcf69dbf5','91836d6f50695df337b96485ec87ad9fea179c779a30f924f05fc4f4d80c0646');
INSERT INTO "forecasts" VALUES(5,'EURUSD','H1','2024-03-04T03:00:00Z','h1-1','{"as_of":"2024-03-04T03:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T04:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T06:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-1","reason":"","stale":false,"symbol":"EURUSD","timeframe":"H1"}','91836d6f50695df337b96485ec87ad9fea179c779a30f924f05fc4f4d80c0646','54a84ff506a0e3cf4e9586595a730b6bd44d263b4e125971408343f60da1e99c');
INSERT INTO "forecasts" VALUES(6,'GBPUSD','H1','2024-03-04T03:00:00Z','h1-1','{"as_of":"2024-03-04T03:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T04:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T06:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-1","reason":"","stale":false,"symbol":"GBPUSD","timeframe":"H1"}','54a84ff506a0e3cf4e9586595a730b6bd44d263b4e125971408343f60da1e99c','c433293564784d2086d2917f67bac169c3a9f4b2a209454dddbab734f8aa9709');
INSERT INTO "forecasts" VALUES(7,'EURUSD','H1','2024-03-04T04:00:00Z','h1-1','{"as_of":"2024-03-04T04:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T05:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T07:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-1","reason":"","stale":false,"symbol":"EURUSD","timeframe":"H1"}','c433293564784d2086d2917f67bac169c3a9f4b2a209454dddbab734f8aa9709','9c0aed04b7790c761a1289d79676caf9be55eb7e520ab3d4afe6c2ac044be878');
INSERT INTO "forecasts" VALUES(8,'GBPUSD','H1','2024-03-04T04:00:00Z','h1-1','{"as_of":"2024-03-04T04:00:00Z","data_version":"bars@1","horizons":[{"bars":1,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T05:00:00Z","volatility":0.001,"volatility_ratio":1.0},{"bars":3,"p_up":0.5,"price_quantiles":null,"quantiles":{"0.05":-0.01,"0.10":-0.005,"0.50":0.0,"0.90":0.005,"0.95":0.01},"reason":"","skill":[],"target_time":"2024-03-04T07:00:00Z","volatility":0.001,"volatility_ratio":1.0}],"last_close":1.1,"made_at":"2024-03-04T00:00:00Z","market":"simulated","model_id":"h1-1","reason":"","stale":false,"symbol":"GBPUSD","timeframe":"H1"}','9c0aed04b7790c761a1289d79676caf9be55eb7e520ab3d4afe6c2ac044be878','2f566a6921b97ae9219ac2eb3c1854e6d626a9f3192ca95d2720917f81a212bc');
CREATE TABLE outcomes (
	seq INTEGER NOT NULL, 
	forecast_seq INTEGER NOT NULL, 
	bars INTEGER NOT NULL, 
	symbol VARCHAR(16) NOT NULL, 
	timeframe VARCHAR(4) NOT NULL, 
	inside80 BOOLEAN, 
	inside90 BOOLEAN, 
	body TEXT NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (forecast_seq, bars)
);
INSERT INTO "outcomes" VALUES(1,1,1,'EURUSD','H1',0,1,'{"bars":1,"close":1.11,"closed_at":"2024-03-04T02:00:00Z","inside80":false,"inside90":true,"return":0.00904983551991792,"volatility":0.00904983551991792}','0000000000000000000000000000000000000000000000000000000000000000','46d5bee4003630c6583dbd702809797d5ad68c35d5ad070b5019a5dcb2b61563');
INSERT INTO "outcomes" VALUES(2,1,3,'EURUSD','H1',0,0,'{"bars":3,"close":1.12,"closed_at":"2024-03-04T04:00:00Z","inside80":false,"inside90":false,"return":0.018018505502678334,"volatility":0.01685475001176639}','46d5bee4003630c6583dbd702809797d5ad68c35d5ad070b5019a5dcb2b61563','f636641ac7c2eac6d9629b4c0e492d02c88aff95ad360f730d609ec0b0875840');
INSERT INTO "outcomes" VALUES(3,3,1,'EURUSD','H1',1,1,'{"bars":1,"close":1.105,"closed_at":"2024-03-04T03:00:00Z","inside80":true,"inside90":true,"return":-0.0045146803545267344,"volatility":0.0045146803545267344}','f636641ac7c2eac6d9629b4c0e492d02c88aff95ad360f730d609ec0b0875840','98e8c95ab9fe6934a336264e2dd04248952a919a3e61fb5e324b03baab1603f4');
INSERT INTO "outcomes" VALUES(4,3,3,'EURUSD','H1',0,1,'{"bars":3,"close":1.119,"closed_at":"2024-03-04T05:00:00Z","inside80":false,"inside90":true,"return":0.008075414005545317,"volatility":0.01424713940629492}','98e8c95ab9fe6934a336264e2dd04248952a919a3e61fb5e324b03baab1603f4','cb2a0392f7d9e6803a7b76d95abd1623bf9c10a9227f6fdadb8964148189aa4a');
INSERT INTO "outcomes" VALUES(5,5,1,'EURUSD','H1',0,0,'{"bars":1,"close":1.12,"closed_at":"2024-03-04T04:00:00Z","inside80":false,"inside90":false,"return":0.013483350337287148,"volatility":0.013483350337287148}','cb2a0392f7d9e6803a7b76d95abd1623bf9c10a9227f6fdadb8964148189aa4a','3212b4d53a2c4121498410a22b20d37474e07b50f851af32f3535db97dd25ea1');
INSERT INTO "outcomes" VALUES(6,7,1,'EURUSD','H1',1,1,'{"bars":1,"close":1.119,"closed_at":"2024-03-04T05:00:00Z","inside80":true,"inside90":true,"return":-0.0008932559772150961,"volatility":0.0008932559772150961}','3212b4d53a2c4121498410a22b20d37474e07b50f851af32f3535db97dd25ea1','96d706d550d770b4345aaffdecbfb576874daa0d4009ddec4da0c5b54db92ef5');
INSERT INTO "outcomes" VALUES(7,2,1,'GBPUSD','H1',0,1,'{"bars":1,"close":1.11,"closed_at":"2024-03-04T02:00:00Z","inside80":false,"inside90":true,"return":0.00904983551991792,"volatility":0.00904983551991792}','96d706d550d770b4345aaffdecbfb576874daa0d4009ddec4da0c5b54db92ef5','2f11a8460440702b4ea0691c19eb7877e7198c4b04b9fe7e2c47dfa74a3cbb3a');
INSERT INTO "outcomes" VALUES(8,2,3,'GBPUSD','H1',0,0,'{"bars":3,"close":1.12,"closed_at":"2024-03-04T04:00:00Z","inside80":false,"inside90":false,"return":0.018018505502678334,"volatility":0.01685475001176639}','2f11a8460440702b4ea0691c19eb7877e7198c4b04b9fe7e2c47dfa74a3cbb3a','32233cb3d327c050f399d23eead5009082c859c91943e3b38707e15097b62386');
INSERT INTO "outcomes" VALUES(9,4,1,'GBPUSD','H1',1,1,'{"bars":1,"close":1.105,"closed_at":"2024-03-04T03:00:00Z","inside80":true,"inside90":true,"return":-0.0045146803545267344,"volatility":0.0045146803545267344}','32233cb3d327c050f399d23eead5009082c859c91943e3b38707e15097b62386','44e7f3dd5ddefaef7104209c06a5ec8ff0869db6f87f007a254ccb3920b7188b');
INSERT INTO "outcomes" VALUES(10,4,3,'GBPUSD','H1',0,1,'{"bars":3,"close":1.119,"closed_at":"2024-03-04T05:00:00Z","inside80":false,"inside90":true,"return":0.008075414005545317,"volatility":0.01424713940629492}','44e7f3dd5ddefaef7104209c06a5ec8ff0869db6f87f007a254ccb3920b7188b','067333f168beae03133b9189950511506ad2bf22520b3c54c5daf7cc2a3d5767');
INSERT INTO "outcomes" VALUES(11,6,1,'GBPUSD','H1',0,0,'{"bars":1,"close":1.12,"closed_at":"2024-03-04T04:00:00Z","inside80":false,"inside90":false,"return":0.013483350337287148,"volatility":0.013483350337287148}','067333f168beae03133b9189950511506ad2bf22520b3c54c5daf7cc2a3d5767','75c0d49ed6f89a273d44d540d86857f871b2bf0ab2f4b27a3804fad4bd3de88d');
INSERT INTO "outcomes" VALUES(12,8,1,'GBPUSD','H1',1,1,'{"bars":1,"close":1.119,"closed_at":"2024-03-04T05:00:00Z","inside80":true,"inside90":true,"return":-0.0008932559772150961,"volatility":0.0008932559772150961}','75c0d49ed6f89a273d44d540d86857f871b2bf0ab2f4b27a3804fad4bd3de88d','8db473a5bf31aa51301b91a853a69d773dc79d269f8adacc552409ecdf47ed6b');
CREATE TABLE pending (
	forecast_seq INTEGER NOT NULL, 
	bars INTEGER NOT NULL, 
	symbol VARCHAR(16) NOT NULL, 
	timeframe VARCHAR(4) NOT NULL, 
	as_of VARCHAR(32) NOT NULL, 
	PRIMARY KEY (forecast_seq, bars)
);
INSERT INTO "pending" VALUES(5,3,'EURUSD','H1','2024-03-04T03:00:00Z');
INSERT INTO "pending" VALUES(6,3,'GBPUSD','H1','2024-03-04T03:00:00Z');
INSERT INTO "pending" VALUES(7,3,'EURUSD','H1','2024-03-04T04:00:00Z');
INSERT INTO "pending" VALUES(8,3,'GBPUSD','H1','2024-03-04T04:00:00Z');
CREATE TABLE seals (
	chain VARCHAR(16) NOT NULL, 
	rows INTEGER NOT NULL, 
	seal VARCHAR(64) NOT NULL, 
	PRIMARY KEY (chain)
);
INSERT INTO "seals" VALUES('forecasts',8,'f4e76b9b1e8d864878c32132028f4a53736ea3b465115474bd132b6121e2458c');
INSERT INTO "seals" VALUES('outcomes',12,'3c54eaf882cb1ef29860174f6750fc522a50ee49a28ebeb9bff58d3b32c753a2');
CREATE INDEX ix_outcomes_forecast_seq ON outcomes (forecast_seq);
CREATE INDEX outcomes_coverage ON outcomes (timeframe, bars, symbol, inside80, inside90);
CREATE INDEX pending_by_series ON pending (symbol, timeframe, as_of);
COMMIT;
